/** One kind of error for everything: `code` is for programs, `message` says what to do, in one sentence or two. */
export class InfraiError extends Error {
  constructor(code, message, { status, param, retryAfter, requestId, retryable = false, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "InfraiError";
    this.code = code;
    this.status = status;
    this.param = param;
    this.retryAfter = retryAfter;
    this.requestId = requestId;
    this.retryable = retryable;
  }
}

/** What a response that is not 2xx says, as an error. The body is problem+json or OpenAI's `{error}`, or nothing of ours. */
export async function errorOf(response) {
  let body;
  try {
    body = await response.json();
  } catch {
    body = {};
  }
  return errorFrom(body, response);
}

/** The error that a body tells, of an answer that began well or did not. */
export function errorFrom(body, response) {
  const error = body?.error ?? {};
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  return new InfraiError(error.code ?? `http_${response.status}`, error.message ?? `The server answered ${response.status}.`, {
    status: body?.status ?? error.status ?? response.status,
    param: error.param ?? undefined,
    retryAfter,
    requestId: error.request_id ?? response.headers.get("X-Request-Id") ?? undefined,
    retryable: error.retryable ?? response.status >= 500,
  });
}

const MICROPHONE = {
  NotAllowedError: ["microphone_refused", "The microphone was refused. Allow it for this page in the browser's address bar, then call again."],
  SecurityError: ["microphone_refused", "The browser does not let this page use the microphone."],
  NotFoundError: ["microphone_missing", "No microphone was found. Plug one in, or type instead."],
  OverconstrainedError: ["microphone_missing", "The chosen microphone is gone. Choose another one."],
  NotReadableError: ["microphone_busy", "The microphone is in use by another program, or the system does not give it to the browser."],
  AbortError: ["microphone_busy", "The microphone could not be started."],
};

/** A failure of getUserMedia in plain words. */
export function microphoneError(error) {
  if (error instanceof InfraiError) return error;
  const [code, message] = MICROPHONE[error?.name] ?? ["microphone_failed", `The microphone could not be opened: ${error?.message ?? error}`];
  return new InfraiError(code, message, { cause: error, retryable: true });
}
