/**
 * A voice button for React 18 and newer.
 *
 *   <VoiceButton client={new InfraiClient({ baseUrl: "https://voice.example" })} token={() => fetch("/token").then(toJson)} />
 *
 * `useLiveCall` is the part to keep when the looks are your own.
 */
import { useCallback, useEffect, useRef, useState } from "react";

/** `{ state, activity, words, problem, muted, start, hangUp, setMuted }`; `options` go to `client.ai.live()`. */
export function useLiveCall(client, options) {
  const call = useRef(undefined);
  const [state, setState] = useState("closed");
  const [activity, setActivity] = useState("listening");
  const [words, setWords] = useState([]);
  const [problem, setProblem] = useState("");
  const [muted, setMutedState] = useState(false);

  useEffect(() => () => call.current?.hangUp(), []);

  // No await before live(): it has to run inside the tap, which is what lets the page sound.
  const start = useCallback(() => {
    const current = client.ai.live(options);
    call.current?.hangUp();
    call.current = current;
    setWords([]);
    setProblem("");
    setMutedState(false);
    setState(current.state);
    const mine = (listener) => (detail) => call.current === current && listener(detail);
    current.on("state", mine((detail) => setState(detail.state)));
    current.on("activity", mine((detail) => setActivity(detail.activity)));
    current.on("transcript", mine((entry) => setWords((before) => replaced(before, entry))));
    current.on("closed", mine(({ reason, message }) => reason !== "hangup" && setProblem(message)));
  }, [client, options]);

  const hangUp = useCallback(() => call.current?.hangUp(), []);
  const setMuted = useCallback((wanted) => {
    if (wanted) call.current?.mute();
    else call.current?.unmute();
    setMutedState(wanted);
  }, []);

  return { state, activity, words, problem, muted, start, hangUp, setMuted };
}

function replaced(words, entry) {
  const place = words.findIndex(({ itemId }) => itemId === entry.itemId);
  return place < 0 ? [...words, entry] : words.with(place, entry);
}

const LABELS = { listening: "Listening", hearing: "Hearing you", thinking: "Thinking", speaking: "Speaking" };

export function VoiceButton({ client, token, agent }) {
  const options = useRef({ token, agent }).current;
  const { state, activity, words, problem, muted, start, hangUp, setMuted } = useLiveCall(client, options);
  const running = state !== "closed";
  return (
    <section>
      <button type="button" onClick={running ? hangUp : start}>
        {running ? "Hang up" : "Talk"}
      </button>
      <button type="button" aria-pressed={muted} disabled={state !== "live"} onClick={() => setMuted(!muted)}>
        Mute
      </button>
      <p role="status">{state === "live" ? LABELS[activity] : state}</p>
      {problem && <p role="alert">{problem}</p>}
      <ol>
        {words.map(({ itemId, role, heard, unheard }) => (
          <li key={itemId} className={role}>
            {heard}
            {unheard && <s>{unheard}</s>}
          </li>
        ))}
      </ol>
    </section>
  );
}
