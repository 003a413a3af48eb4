/** The two lists of devices, kept up to date. Names are known only once the microphone has been allowed. */

export class Devices {
  #selects;

  constructor(input, output, outputField) {
    this.#selects = { audioinput: input, audiooutput: output };
    outputField.hidden = !("setSinkId" in HTMLMediaElement.prototype);
    navigator.mediaDevices?.addEventListener("devicechange", () => this.refresh());
  }

  async refresh() {
    if (!navigator.mediaDevices?.enumerateDevices) return;
    const found = await navigator.mediaDevices.enumerateDevices();
    for (const [kind, select] of Object.entries(this.#selects)) {
      const chosen = select.value;
      const named = found.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default" && device.label);
      const options = [new Option("System default", ""), ...named.map((device) => new Option(device.label, device.deviceId))];
      select.replaceChildren(...options);
      select.value = named.some((device) => device.deviceId === chosen) ? chosen : "";
    }
  }
}
