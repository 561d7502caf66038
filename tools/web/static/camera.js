// A picture from the camera, or one after the other.

const byId = (id) => document.getElementById(id);
let stream = null;
let running = null; // what to do at the end of the live pictures

function switchOff() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("video").srcObject = null;
}

// Browsers give the camera's picture only to pages of this machine or over https; elsewhere, phones open their camera.
// use(file): look at one picture. watch(file): the same, live; returns whether to go on. ended(): after the live pictures.
export async function openCamera({ use, watch, ended, fail }) {
  stopLive();
  if (!navigator.mediaDevices?.getUserMedia) {
    byId("capture").click();
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch {
    fail();
    return;
  }
  let live = false;
  byId("video").srcObject = stream;
  byId("live").showModal();
  await byId("video").play().catch(() => {});
  byId("take").onclick = async () => {
    const file = await takePicture();
    byId("live").close();
    if (file) use(file);
  };
  byId("watch").onclick = () => {
    live = true;
    byId("live").close();
  };
  byId("leave").onclick = () => byId("live").close();
  byId("live").onclose = () => (live ? goLive(watch, () => ended()) : switchOff());
}

async function takePicture() {
  const video = byId("video");
  if (!video.videoWidth) return null;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  return new File([blob], "camera.jpg", { type: "image/jpeg" });
}

// A picture is taken when the one before it is answered, so that no more than one waits.
async function goLive(watch, ended) {
  running = ended;
  byId("stop").hidden = false;
  byId("stop").focus();
  document.addEventListener("visibilitychange", stopLive);
  stream.getVideoTracks()[0].addEventListener("ended", stopLive); // it was unplugged
  while (running === ended) {
    const file = await takePicture();
    if (running !== ended) return;
    if (file && !(await watch(file))) stopLive();
    await new Promise((done) => setTimeout(done, 15)); // lets the browser draw and listen
  }
}

export function stopLive() {
  if (!running) return;
  const ended = running;
  running = null;
  document.removeEventListener("visibilitychange", stopLive);
  if (document.activeElement === byId("stop")) byId("camera").focus();
  byId("stop").hidden = true;
  switchOff();
  ended();
}
