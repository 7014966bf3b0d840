// The sliders of the style. The ranges are those of `timar_ros/live/page_commands.py`.

const SLIDERS: [string, string, number, number, string][] = [
  ["temperature", "Liveliness of the sampling", 0, 2, "Factor on the noise that sampling adds: 1 as trained, 0 always the same."],
  ["guidance", "Attention to the partner", 1, 3, "Strength of classifier-free guidance; 1: none."],
  ["speaking_gain", "Head while it speaks", 0, 2, "Factor on the robot’s head motion while it speaks."],
  ["listening_gain", "Head while it listens", 0, 2, "Factor on the robot’s head motion while it listens."],
];

export class Sliders {
  private readonly inputs = new Map<string, { input: HTMLInputElement; output: HTMLOutputElement; held: number }>();

  constructor(host: HTMLElement, change: (name: string, value: number) => void) {
    for (const [name, label, low, high, title] of SLIDERS) {
      const row = document.createElement("label");
      row.className = "slider";
      row.title = title;
      const [words, output, input] = [document.createElement("span"), document.createElement("output"), document.createElement("input")];
      words.textContent = label;
      Object.assign(input, { type: "range", min: String(low), max: String(high), step: "0.05", disabled: true });
      input.setAttribute("aria-label", label);
      row.append(words, output, input);
      host.append(row);
      const one = { input, output, held: 0 };
      this.inputs.set(name, one);
      input.addEventListener("input", () => {
        one.held = performance.now();
        this.show(one);
      });
      input.addEventListener("change", () => {
        one.held = performance.now();
        change(name, Number(input.value));
      });
    }
  }

  /** What the nodes say the style is; a slider that was just moved is left alone until they can have heard. */
  update(style: Record<string, number>): void {
    for (const [name, one] of this.inputs) {
      one.input.disabled = !(name in style);
      if (name in style && performance.now() - one.held > 2500) one.input.value = String(style[name]);
      this.show(one);
    }
  }

  private show({ input, output }: { input: HTMLInputElement; output: HTMLOutputElement }): void {
    const low = Number(input.min);
    output.textContent = input.disabled ? "–" : Number(input.value).toFixed(2);
    input.style.setProperty("--done", `${(100 * (Number(input.value) - low)) / (Number(input.max) - low)}%`);
  }
}
