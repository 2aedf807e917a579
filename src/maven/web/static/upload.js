/* From files on a desk to clips in the queue: pairs transcripts with videos, sends one clip at a
   time, shows how far each is. `maven.page.uploads(list, options)` gives `.add(files)`. */
"use strict";

(() => {
  const { page } = window.maven;
  const { make } = page;
  const TRANSCRIPTS = [".srt", ".vtt", ".json", ".txt", ".align"];

  const stem = (name) => name.replace(/\.[^.]*$/, "").toLowerCase();
  const isTranscript = (name) => TRANSCRIPTS.some((end) => name.toLowerCase().endsWith(end));

  /** Pair files: [{media, transcript or null}], and the transcripts that have no media.
      "talk.srt" and "talk.en.srt" go with "talk.mp4"; the shorter name first. */
  function pair(files) {
    const left = files.filter((file) => isTranscript(file.name));
    left.sort((a, b) => a.name.length - b.name.length);
    const pairs = files
      .filter((file) => !isTranscript(file.name))
      .map((media) => {
        const fits = (file) =>
          stem(file.name) === stem(media.name) || stem(stem(file.name)) === stem(media.name);
        const at = left.findIndex(fits);
        return { media, transcript: at < 0 ? null : left.splice(at, 1)[0] };
      });
    return { pairs, left };
  }

  /** Send a file as the raw body of a request; fetch cannot tell how far an upload is. */
  function send(path, file, progress) {
    const request = new XMLHttpRequest();
    const answer = new Promise((resolve, reject) => {
      const refuse = (status, why) => reject(new page.Refused(status, why));
      request.open("POST", path);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.onprogress = (event) => progress(event.loaded, event.total);
      request.onload = () =>
        request.status === 201
          ? resolve(JSON.parse(request.responseText))
          : refuse(request.status, page.reason(request.status, request.responseText));
      request.onerror = () => refuse(0, "the connection to maven broke while the file was sent");
      request.onabort = () => refuse(0, "");
      request.send(file);
    });
    return { answer, stop: () => request.abort() };
  }

  /** One line a file, and the sending of one after another.

      Args of `options`: `settings()` gives the query of a clip; `sent(clip)` is called for each. */
  page.uploads = (list, options) => {
    const waiting = [];
    let sending = false;

    function line(name, size) {
      const bar = page.bar(`Upload of ${name}`);
      const text = make("p", { class: "small muted" }, "waiting to be sent");
      const button = make("button", { type: "button", class: "small" }, "Cancel");
      const label = `Cancel the upload of ${name}`;
      button.setAttribute("aria-label", label);
      const title = make("p", { class: "title" }, name);
      const element = make("li", {}, title, button, bar.element, text);
      bar.show(0);
      list.append(element);
      const remove = () => {
        const held = element.contains(document.activeElement);
        element.remove();
        if (held) options.focus();
      };
      return {
        button,
        remove,
        show(loaded, total) {
          bar.show(total ? loaded / total : 0);
          const whole = loaded >= total;
          page.put(text, whole ? "checking" : `${page.size(loaded)} of ${page.size(size)}`);
        },
        /** Say why; `retry` is called where the same may work later. */
        fail(why, retry) {
          const again = () => {
            remove();
            retry();
          };
          bar.element.remove();
          text.className = "small error";
          page.put(text, why);
          page.say(`${name}: ${why}`);
          page.put(button, "Dismiss");
          button.setAttribute("aria-label", `Dismiss the message about ${name}`);
          button.onclick = remove;
          if (!retry) return;
          button.before(
            make(
              "button",
              { type: "button", class: "small", onclick: again, "aria-label": `Send ${name} again` },
              "Try again",
            ),
          );
        },
      };
    }

    async function upload({ media, transcript, shown, query, task }) {
      const hand = (path, file, progress) => {
        const sent = send(path, file, progress);
        task.stop = sent.stop;
        return sent.answer;
      };
      const { size_bytes } = (await page.about()).limits;
      if (size_bytes && media.size > size_bytes) {
        const sizes = `${page.size(media.size)}, more than ${page.size(size_bytes)}`;
        throw new page.Refused(413, `the file is too large: ${sizes}`);
      }
      if (media.size === 0) throw new page.Refused(400, "the file is empty");
      if (transcript) {
        const path = `/api/transcripts?name=${encodeURIComponent(transcript.name)}`;
        const { id } = await hand(path, transcript, () => {}).catch((error) => {
          throw new page.Refused(error.status, error.message && `${transcript.name}: ${error.message}`);
        });
        query.set("transcript", id);
      }
      if (task.stopped) throw new page.Refused(0, "");
      query.set("name", media.name);
      return hand(`/api/clips?${query}`, media, shown.show);
    }

    async function next() {
      if (sending || !waiting.length) return;
      sending = true;
      const job = waiting.shift();
      if (!job.task.stopped) {
        try {
          const clip = await upload(job);
          job.shown.remove();
          page.say(`${job.media.name} is uploaded`);
          options.sent(clip);
        } catch (error) {
          if (!(error instanceof page.Refused)) throw error;
          const passing = error.status === 0 || error.status >= 500;
          if (!job.task.stopped) job.shown.fail(error.message, passing ? () => enter(job) : null);
        }
      }
      sending = false;
      next();
    }

    function enter({ media, transcript, query }) {
      const shown = line(media.name, media.size);
      const task = { stopped: false, stop: () => {} };
      shown.button.onclick = () => {
        task.stopped = true;
        task.stop();
        shown.remove();
      };
      waiting.push({ media, transcript, shown, query, task });
      next();
    }

    window.addEventListener("beforeunload", (event) => {
      if (sending) event.preventDefault(); // what is not sent yet would be lost
    });

    return {
      add(files) {
        const { pairs, left } = pair(files);
        for (const { name } of left) {
          line(name, 0).fail("a transcript, but no video of the same name came with it");
        }
        const settings = options.settings();
        for (const one of pairs) enter({ ...one, query: new URLSearchParams(settings) });
      },
      /** Something dropped that is no file. */
      refuse: (name, why) => line(name, 0).fail(why),
    };
  };
})();
