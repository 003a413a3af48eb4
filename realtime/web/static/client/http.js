/** Requests to the server: JSON in and out, every failure an InfraiError. */

import { errorOf, InfraiError } from "./errors.js";

/** fetch, with a server that cannot be reached and an answer that is no success as InfraiErrors. */
export async function request(url, options) {
  let response;
  try {
    response = await fetch(url, { ...options, cache: "no-store" });
  } catch (error) {
    if (error?.name === "AbortError") throw new InfraiError("aborted", "The request was given up.", { cause: error });
    const message = `The server at ${new URL(url).host} cannot be reached. Is it running, and is this device online?`;
    throw new InfraiError("unreachable", message, { cause: error, retryable: true });
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** POST an object (its undefined members are left out) and read the object that comes back. */
export async function postJson(url, body, { bearer, signal } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  const response = await request(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  return response.json();
}
