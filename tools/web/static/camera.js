// A picture from the camera.

const byId = (id) => document.getElementById(id);
let stream = null;

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("video").srcObject = null;
}

// Browsers give the camera's picture only to pages of this machine or over https; elsewhere, phones open their camera.
export async function openCamera(use, fail) {
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
  byId("video").srcObject = stream;
  byId("live").showModal();
  await byId("video").play().catch(() => {});
  byId("take").onclick = () => take(use);
  byId("leave").onclick = () => byId("live").close();
  byId("live").onclose = stop;
}

function take(use) {
  const video = byId("video");
  if (!video.videoWidth) return;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  byId("live").close();
  canvas.toBlob((blob) => use(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.95);
}
