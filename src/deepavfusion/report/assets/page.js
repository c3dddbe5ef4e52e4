"use strict";

// Reading values off a curve: the nearest point to the pointer, or arrow keys; left alone, it shows the last one.
for (const plot of document.querySelectorAll(".plot")) {
  const curve = JSON.parse(plot.dataset.curve);
  const figure = plot.closest("figure");
  const readings = figure.querySelectorAll(".legend b");
  const dots = plot.querySelectorAll(".dot");
  const cursor = plot.querySelector(".cursor");
  const svg = plot.querySelector("svg");
  const last = curve.x.length - 1;

  const show = (index, marked) => {
    const left = (plot.clientWidth - svg.clientWidth) / 2 + (curve.at[index] / 100) * svg.clientWidth;
    curve.values.forEach((values, i) => {
      const up = curve.up[i][index];
      readings[i].textContent = values[index];
      dots[i].hidden = !marked || up === null;
      dots[i].style.left = `${left}px`;
      dots[i].style.top = `${100 - up}%`;
    });
    cursor.hidden = !marked;
    cursor.style.left = `${left}px`;
    figure.querySelector(".at").textContent = `${curve.name} ${curve.x[index]}`;
    plot.ariaValueNow = index;
    plot.ariaValueText = `${curve.name} ${curve.x[index]}: ` + curve.names.map((name, i) => `${name} ${curve.values[i][index]}`).join(", ");
  };

  plot.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = (100 * (event.clientX - box.left)) / box.width;
    let nearest = 0;
    curve.at.forEach((place, i) => {
      if (Math.abs(place - at) < Math.abs(curve.at[nearest] - at)) nearest = i;
    });
    show(nearest, true);
  });
  plot.addEventListener("pointerleave", () => show(last, false));
  plot.addEventListener("blur", () => show(last, false));
  plot.addEventListener("keydown", (event) => {
    const now = Number(plot.ariaValueNow);
    const next = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    show(Math.min(Math.max(next, 0), last), true);
  });
}

// Pictures of several moments: one at a time. Without this script all of them stand one below the other.
for (const strip of document.querySelectorAll(".pictures")) {
  const choice = strip.querySelector("fieldset");
  if (!choice) continue;
  const frames = strip.querySelectorAll(".frame");
  const choose = () => {
    const shown = Number(choice.querySelector(":checked").value);
    frames.forEach((frame, i) => (frame.hidden = i !== shown));
  };
  choice.addEventListener("change", choose);
  choice.hidden = false;
  choose();
}

// A clip that plays moves the mark on its sources' times; another one that was playing stops.
for (const clip of document.querySelectorAll(".clip")) {
  const player = clip.querySelector("video, audio");
  const marks = clip.querySelectorAll(".playhead");
  const move = () => {
    const share = Math.min(player.currentTime / Number(clip.dataset.seconds), 1);
    marks.forEach((mark) => (mark.style.left = `${100 * share}%`));
    if (!player.paused) requestAnimationFrame(move);
  };
  const button = clip.querySelector(".play");
  if (button) {
    // The player's own controls would cover the picture; they come with the first playing.
    button.hidden = false;
    player.controls = false;
    button.addEventListener("click", () => player.play());
  }
  player.addEventListener("play", () => {
    if (button && !button.hidden) {
      button.hidden = true;
      player.controls = true;
      player.focus();
    }
    document.querySelectorAll("video, audio").forEach((other) => other !== player && other.pause());
    clip.classList.add("started");
    move();
  });
  player.addEventListener("seeked", move);
}
