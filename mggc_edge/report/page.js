
"use strict";
(() => {
  document.documentElement.classList.add("script");
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // The row of a sample's pictures becomes a stage: two of them over each other, with a line between. The line is a range
  // input for keys and screen readers, and the pointer on the whole picture; the two are chosen by two groups of radio
  // buttons, which hold for all samples.
  const SIDES = { left: "Left of the line", right: "Right of the line" };
  const stages = [...document.querySelectorAll(".row")].map((row, number) => {
    const figures = new Map([...row.querySelectorAll("figure")].map((figure) => [figure.dataset.column, figure]));
    const name = (column) => figures.get(column).querySelector("figcaption").textContent;
    const shown = { left: "original", right: "compressed" };
    const input = element("input", { type: "range", min: 0, max: 100, value: 50 });
    const move = (at) => {
      input.value = at;
      row.style.setProperty("--at", `${at}%`);
      row.classList.toggle("far-left", at < 25);
      row.classList.toggle("far-right", at > 70);
      input.setAttribute("aria-valuetext", `${Math.round(at)} % ${name(shown.left)}, the rest ${name(shown.right)}`);
    };
    const follow = (event) => {
      const box = row.getBoundingClientRect();
      move(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
    };
    input.addEventListener("input", () => move(Number(input.value)));
    row.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      row.setPointerCapture(event.pointerId);
      input.focus({ preventScroll: true });
      follow(event);
    });
    row.addEventListener("pointermove", (event) => {
      if (row.hasPointerCapture(event.pointerId)) follow(event);
    });

    const radios = [];
    const group = (side) => {
      const choices = [...figures.keys()].map((column) => {
        const radio = element("input", { type: "radio", name: `${side}-${number}`, value: column });
        radio.addEventListener("change", () => choose(side, column));
        radios.push({ radio, side, column });
        return element("label", {}, radio, element("span", { textContent: name(column) }));
      });
      const legend = element("legend", { textContent: SIDES[side] });
      return element("fieldset", { className: side }, legend, element("div", { className: "choices" }, ...choices));
    };
    const set = (left, right) => {
      if (!figures.has(left) || !figures.has(right)) return; // this sample has no truth, say: it keeps what it shows
      Object.assign(shown, { left, right });
      for (const [column, figure] of figures) {
        figure.classList.toggle("left", column === left);
        figure.classList.toggle("right", column === right);
      }
      for (const { radio, side, column } of radios) radio.checked = column === shown[side];
      input.setAttribute("aria-label", `Where ${name(left)} ends and ${name(right)} begins`);
      move(Number(input.value));
    };
    row.classList.add("stage");
    row.append(input, element("div", { className: "line" }));
    const sides = element("div", { className: "sides" }, group("left"), group("right"));
    row.after(sides);
    const both = element("div", { className: "compared" });
    row.before(both);
    both.append(row, sides);
    set(shown.left, shown.right);
    return { shown, set };
  });
  // Who takes for one side what stands on the other swaps the two.
  const choose = (side, column) => {
    const other = side === "left" ? "right" : "left";
    for (const { shown, set } of stages) {
      const next = { ...shown, [side]: column };
      if (next[other] === column) next[other] = shown[side];
      set(next.left, next.right);
    }
  };

  // The chooser: one sample at a time. Its thumbnails are the pictures that are there.
  const samples = [...document.querySelectorAll(".sample")];
  const show = (chosen) => {
    samples.forEach((sample, index) => sample.classList.toggle("shown", index === chosen));
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === chosen)));
  };
  const buttons = samples.map((sample, index) => {
    const thumbnail = element("img", { src: sample.querySelector(".compressed img").src, alt: "" });
    const button = element("button", { type: "button", title: sample.dataset.name }, thumbnail);
    button.setAttribute("aria-label", `Show ${sample.dataset.name}`);
    button.addEventListener("click", () => show(index));
    return button;
  });
  if (samples.length > 1) {
    const chooser = element("div", { className: "chooser" }, ...buttons);
    chooser.setAttribute("role", "group");
    chooser.setAttribute("aria-label", "Pictures");
    document.getElementById("samples").prepend(chooser);
  }
  show(0);

  const copy = document.getElementById("copy");
  if (copy) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const command = document.getElementById("command");
      let done = true;
      try {
        await navigator.clipboard.writeText(command.textContent);
      } catch {
        // not allowed here: select it, so that the user's own copy key takes it
        getSelection().selectAllChildren(command);
        done = document.execCommand("copy");
      }
      copy.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { copy.textContent = "Copy"; }, 1600);
    });
  }

  // On paper everything is open, and afterwards as it was.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
})();
