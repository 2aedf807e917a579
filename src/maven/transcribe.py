"""The words of a video, from wherever they can be had; speech recognition is the last resort.

The order: a file that was given, a file beside the video, a subtitle stream inside it, and then a
recogniser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from maven.media import probe
from maven.part import WHOLE, Part
from maven.recognise import (
    DEFAULT_SIZE,
    PocketsphinxRecogniser,
    Progress,
    Recogniser,
    RecogniserError,
    WhisperRecogniser,
    recognise,
)
from maven.speech import SpeechSpan
from maven.transcript import Transcript, beside, read_subtitle_stream, read_transcript

ACCEPTED = "'auto', 'none', 'whisper', 'whisper:SIZE', 'whisper:FOLDER', 'pocketsphinx'"


class Transcriber:
    """Finds the words of media files; a recogniser is built when first needed, and kept.

    Args:
        asr: 'auto' is whisper if its weights are here or can be fetched, else nothing, with a line
            that says so; 'none' recognises nothing (files and streams are read all the same);
            'whisper', 'whisper:SIZE', 'whisper:FOLDER' and 'pocketsphinx' ask for one.
        offline: fetch nothing.
        device: 'cpu' or 'cuda'.

    Raises:
        RecogniserError: `asr` is none of these.
    """

    def __init__(self, asr: str = "auto", *, offline: bool = False, device: str = "cpu") -> None:
        kind, colon, which = asr.partition(":")
        known = kind in ("auto", "none", "whisper", "pocketsphinx")
        if not known or (colon and not (kind == "whisper" and which)):
            raise RecogniserError(f"speech recognition: got {asr!r}; accepted: {ACCEPTED}")
        self._kind, self._which = kind, which or DEFAULT_SIZE
        self._offline, self._device = offline, device
        self._recogniser: Recogniser | None = None
        self._missing: str | None = None  # why there is no recogniser

    def find(
        self,
        media_path: Path,
        *,
        given: Path | None = None,
        spans: Sequence[SpeechSpan] = (),
        progress: Progress | None = None,
        part: Part = WHOLE,
    ) -> tuple[Transcript, str | None]:
        """Return the words of a media file, and one line that says why there are none.

        The line is None when a source was found, wordless or not. A transcript file's clock begins
        where the media begins (its earliest stream), as players have it.

        Args:
            media_path: the video.
            given: a transcript file that goes before everything else.
            spans: where somebody speaks; a recogniser hears nothing else.
            progress: called with the seconds of speech heard and their total.
            part: only the words in it; one that reaches over its edge is cut there.

        Raises:
            TranscriptError: the given file, or the one beside the video, cannot be read.
            MediaError: the video cannot be read.
            RecogniserError: the recogniser that was asked for does not work.
        """
        neighbour = beside(media_path) if given is None else None
        file = given or neighbour
        if file is not None:
            transcript = _shifted(read_transcript(file), probe(media_path).start_s)
            source = transcript.source if given else f"beside: {file.name}"
            return replace(_within(transcript, part), source=source), None
        streamed = read_subtitle_stream(media_path)
        if streamed is not None:
            return _within(streamed, part), None
        nothing = Transcript((), "none")
        if not spans:
            return nothing, "no words: nobody speaks and there is no transcript"
        recogniser = self._build()
        if recogniser is None:
            return nothing, self._missing
        try:
            return recognise(media_path, recogniser, spans, progress, part), None
        except RecogniserError as error:
            if self._kind != "auto":
                raise
            return nothing, f"no words: {error}"

    def _build(self) -> Recogniser | None:
        if self._recogniser is None and self._missing is None:
            if self._kind == "none":
                self._missing = "no words: no transcript, and speech recognition is off"
            elif self._kind == "pocketsphinx":
                self._recogniser = PocketsphinxRecogniser()
            else:
                try:
                    self._recogniser = WhisperRecogniser(
                        self._which, offline=self._offline, device=self._device
                    )
                except RecogniserError as error:
                    if self._kind != "auto":
                        raise
                    self._missing = f"no words: {error}"
        return self._recogniser


def _within(transcript: Transcript, part: Part) -> Transcript:
    cut = ((word, *part.within(word.start_s, word.end_s)) for word in transcript.words)
    words = (
        replace(word, start_s=low_s, end_s=high_s) for word, low_s, high_s in cut if low_s < high_s
    )
    return replace(transcript, words=tuple(words))


def _shifted(transcript: Transcript, offset_s: float) -> Transcript:
    words = (
        replace(word, start_s=word.start_s + offset_s, end_s=word.end_s + offset_s)
        for word in transcript.words
    )
    return replace(transcript, words=tuple(words))
