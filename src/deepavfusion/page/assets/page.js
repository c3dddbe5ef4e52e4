// The mark over every curve follows whatever plays: all of it is the same recording, but for the moments of an archive.
for (const name of ["timeupdate", "seeking", "play"]) {
  document.addEventListener(name, (event) => {
    const player = event.target;
    if (!(player instanceof HTMLMediaElement)) return;
    const moment = player.closest(".moment");
    for (const plot of document.querySelectorAll(".timeline .plot, .spectrogram")) {
      if (plot.closest(".moment") !== moment) continue;
      const share = player.currentTime / Number(plot.dataset.seconds);
      const mark = plot.querySelector(".playhead");
      mark.style.left = `${100 * Math.min(1, share)}%`;
      mark.style.visibility = "visible";
    }
  }, true);
}
// One sound at a time.
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("#results video, #results audio")) {
    if (other !== event.target) other.pause();
  }
}, true);
// On a telephone the results are below what one has just pressed.
document.addEventListener("click", (event) => {
  if (innerWidth > 860 || !event.target.closest?.("#run, #examples button")) return;
  setTimeout(() => document.querySelector("#results").scrollIntoView({ behavior: "smooth" }), 300);
});
// No model looks at more than this of a camera, and a slow computer cannot encode more while it records.
const devices = navigator.mediaDevices;
if (devices?.getUserMedia) {
  const ask = devices.getUserMedia.bind(devices);
  devices.getUserMedia = (wanted) => {
    const size = { width: { ideal: 640 }, height: { ideal: 480 } };
    if (!wanted?.video) return ask(wanted);
    return ask({ ...wanted, video: { ...(wanted.video === true ? {} : wanted.video), ...size } });
  };
}
// A recording of the camera does not say how long it is; a player that is sent to its end finds out.
document.addEventListener("loadedmetadata", (event) => {
  const player = event.target;
  if (!(player instanceof HTMLMediaElement) || player.duration !== Infinity || player.srcObject) return;
  player.addEventListener("durationchange", () => { if (player.duration !== Infinity) player.currentTime = 0; });
  player.currentTime = 1e7;
}, true);
