// What the page says, in English and Chinese. A text is a string, or a function of values.

const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

export const WORDS = {
  en: {
    title: "DETR: what is in the picture",
    about: (classes, device) => `${count(classes, "class", "classes")}, on ${device}`,
    drop: "Drop a picture here", or: "or paste one, choose a file, or use the camera",
    choose: "Choose a picture", camera: "Camera", take: "Take the picture", watch: "Live", stop: "Stop", close: "Close",
    live: "Live: a picture is taken when the one before it is answered.",
    view: "View", map: "Panoptic map", segments: "Segments",
    score: "Scores from", classes: "Classes", all: "All", none: "None",
    objects: "Objects", times: "Times", json: "COCO JSON", copy: "Copy", copied: "The JSON is copied.",
    copy_failed: "The browser did not copy: select the text and copy it yourself.",
    hint: "Choose an object, here or in the picture, to see where the model looked.",
    hint_plain: "Choose an object, here or in the picture, to see it alone.",
    hint_map: "Choose a segment, here or in the picture, to see where the model looked for a thing, or stuff alone.",
    hint_map_plain: "Choose a segment, here or in the picture, to see it alone.",
    thing: (share) => `thing, covers ${share}`, stuff: (share) => `stuff, covers ${share}`,
    show: (name) => `Show ${name}`,
    no_segments: (score) => `No mask scores above the map's ${score}: see the objects, or start the command with --panoptic_threshold.`,
    shown: (n, all) => n === all ? `${n}` : `${n} of ${all}`,
    footer: "Pictures are looked at by the machine that serves this page, in its memory. Nothing is stored.",
    working: (name) => `Looking at ${name} …`,
    found: (n, below) => `${count(n, "object", "objects")} shown` + (below ? `; ${below} more below the score or of other classes.` : "."),
    found_segments: (n, off) => `${count(n, "segment", "segments")} shown` + (off ? `; ${off} more switched off, below the score or of other classes.` : "."),
    looking: "Asking where the model looked …",
    looked: (name) => `Bright: where the model looked for this ${name}. Escape ends it.`,
    alone: (name) => `This ${name} alone. Escape ends it.`,
    canvas: (n, names) => `The picture with ${count(n, "object", "objects")}${n ? `: ${names}` : ""}. Arrow keys go through them.`,
    canvas_map: (n, names) => `The panoptic map with ${count(n, "segment", "segments")}${n ? `: ${names}` : ""}. Arrow keys go through them.`,
    receive: "sending", wait: "waiting", decode: "decoding", model: "the model", write: "results", total: "in all",
    pasted: "camera picture", picture: "the picture",
    text: "Only picture files are taken, no text and no addresses: drop or paste the picture itself.",
    several: (n) => `The first of ${n} files is used.`,
    no_camera: "The browser gives no camera: allow it, or choose a file.",
    not_shown: "The browser cannot show this picture, though the detector read it: convert it to PNG or JPEG.",
    offline: "The server does not answer: is the command still running?",
    too_large: (limit) => `The file is larger than the limit of ${limit} MB: make it smaller.`,
    too_many_pixels: "The picture has too many pixels: make it smaller.",
    no_picture: "The file is no picture that can be read: use JPEG, PNG, WebP, GIF, BMP or AVIF.",
    damaged: "The picture is damaged: use another one.",
    busy: "The detector is busy: try again in a moment.",
    slow: "The picture came too slowly: send it again.",
  },
  zh: {
    title: "DETR：图片里有什么",
    about: (classes, device) => `${classes} 个类别，运行于 ${device}`,
    drop: "把图片拖到这里", or: "或者粘贴、选择文件、使用摄像头",
    choose: "选择图片", camera: "摄像头", take: "拍照", watch: "实时", stop: "停止", close: "关闭",
    live: "实时检测：收到上一帧的结果后再拍下一帧。",
    view: "视图", map: "全景分割图", segments: "分割区域",
    score: "最低得分", classes: "类别", all: "全选", none: "全不选",
    objects: "目标", times: "用时", json: "COCO JSON", copy: "复制", copied: "JSON 已复制。",
    copy_failed: "浏览器没有复制：请自行选中文字并复制。",
    hint: "在列表或图片中选择一个目标，可以看到模型关注的位置。",
    hint_plain: "在列表或图片中选择一个目标，可以单独查看它。",
    hint_map: "在列表或图片中选择一个区域：可数目标会显示模型关注的位置，背景会单独显示。",
    hint_map_plain: "在列表或图片中选择一个区域，可以单独查看它。",
    thing: (share) => `可数目标，占 ${share}`, stuff: (share) => `背景，占 ${share}`,
    show: (name) => `显示 ${name}`,
    no_segments: (score) => `没有掩码的得分超过全景图的阈值 ${score}：请查看目标，或用 --panoptic_threshold 启动命令。`,
    shown: (n, all) => n === all ? `${n}` : `${n} / ${all}`,
    footer: "图片只在提供本页的机器的内存中处理，不会保存。",
    working: (name) => `正在识别 ${name} ……`,
    found: (n, below) => `显示 ${n} 个目标` + (below ? `；另有 ${below} 个得分较低或属于其他类别。` : "。"),
    found_segments: (n, off) => `显示 ${n} 个区域` + (off ? `；另有 ${off} 个已关闭、得分较低或属于其他类别。` : "。"),
    looking: "正在查询模型关注的位置……",
    looked: (name) => `明亮处是模型识别这个目标（${name}）时关注的位置。按 Esc 返回。`,
    alone: (name) => `单独显示这个目标（${name}）。按 Esc 返回。`,
    canvas: (n, names) => `图片中有 ${n} 个目标${n ? `：${names}` : ""}。用方向键逐个查看。`,
    canvas_map: (n, names) => `全景分割图中有 ${n} 个区域${n ? `：${names}` : ""}。用方向键逐个查看。`,
    receive: "上传", wait: "排队", decode: "解码", model: "模型", write: "结果", total: "总计",
    pasted: "拍摄的图片", picture: "图片",
    text: "只接受图片文件，不接受文字和网址：请拖入或粘贴图片本身。",
    several: (n) => `共 ${n} 个文件，只使用第一个。`,
    no_camera: "浏览器没有提供摄像头：请允许使用，或选择文件。",
    not_shown: "检测器读取了图片，但浏览器无法显示：请转换为 PNG 或 JPEG。",
    offline: "服务器没有回应：命令还在运行吗？",
    too_large: (limit) => `文件超过 ${limit} MB 的上限：请缩小图片。`,
    too_many_pixels: "图片的像素太多：请缩小图片。",
    no_picture: "无法读取这个文件：请使用 JPEG、PNG、WebP、GIF、BMP 或 AVIF 图片。",
    damaged: "图片已损坏：请换一张。",
    busy: "检测器正忙：请稍后再试。",
    slow: "图片传得太慢：请重新发送。",
  },
};

const preferred = () => (navigator.languages.find((tag) => /^(zh|en)/i.test(tag)) ?? "en").slice(0, 2).toLowerCase();

// The address may name the language, as in /#zh; otherwise it is the browser's.
export let language = location.hash.slice(1) in WORDS ? location.hash.slice(1) : preferred();

export function setLanguage(tag) {
  language = tag;
  history.replaceState(null, "", `#${tag}`);
}

export const knows = (key) => Object.hasOwn(WORDS.en, key);

export function say(key, ...values) {
  const text = WORDS[language][key];
  return typeof text === "function" ? text(...values) : text;
}

// Fill the elements that name their words.
export function fill() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = say(element.dataset.words);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  const button = document.getElementById("language");
  button.textContent = language === "zh" ? "English" : "中文";
  button.lang = language === "zh" ? "en" : "zh";
}
