package openai

import (
	"bytes"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/audio"
	"github.com/tallygate/tallygate/meter/wire"
)

// inspectTranscription reads a request for a transcription. If the recording is uploaded, its length is computed.
func inspectTranscription(r *wire.Request) (*meter.Call, error) {
	c, err := inspectMedia(r, transcriptionsAPI, false)
	if err != nil {
		return nil, err
	}
	var file []byte
	var format string
	switch {
	case r.IsMultipart():
		file, format = r.ReadRecording(c)
	case !r.LooksJSON() && !r.IsForm():
		file = r.Body
	}
	if length, ok := audio.Length(file); ok {
		c.Length = meter.Quantity((length + time.Microsecond - 1) / time.Microsecond)
	} else if format == "text" { // the answer will have nothing but words
		c.Unsaid = meter.Second
	}
	c.Timed = true
	c.Format = transcript{c.Format}
	return c, nil
}

// transcript counts transcriptions. Their formats text, srt and vtt state no usage.
// https://platform.openai.com/docs/api-reference/audio/createTranscription#audio-createtranscription-response_format
type transcript struct{ meter.Format }

// Counter implements [meter.Format].
func (f transcript) Counter(c *meter.Call, status int, h http.Header) meter.Counter {
	return &subtitles{Counter: f.Format.Counter(c, status, h), call: c, failed: status >= 400}
}

// subtitles finds the time at which the last subtitle ends.
type subtitles struct {
	meter.Counter
	call   *meter.Call
	failed bool
	line   []byte
	end    time.Duration
}

// maxLine is how many bytes of a line are read. A line with times is shorter.
const maxLine = 128

// Feed implements [meter.Counter].
func (s *subtitles) Feed(dst, chunk []byte) []byte {
	for rest := chunk; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		s.line = append(s.line, line[:min(len(line), maxLine-len(s.line))]...)
		if ended {
			s.read()
		}
		rest = after
	}
	return s.Counter.Feed(dst, chunk)
}

// read reads a line with times: 00:00:01,000 --> 00:00:04,000 in SubRip. In WebVTT there is a point instead of the comma, perhaps no hours,
// and perhaps settings at the end. https://www.w3.org/TR/webvtt1/#webvtt-cue-timings
func (s *subtitles) read() {
	if _, to, found := bytes.Cut(s.line, []byte("-->")); found {
		if fields := bytes.Fields(to); len(fields) > 0 {
			s.end = max(s.end, clock(fields[0]))
		}
	}
	s.line = s.line[:0]
}

// clock reads a time of a subtitle. It returns 0 for other text.
func clock(text []byte) (d time.Duration) {
	whole, fraction, _ := bytes.Cut(bytes.ReplaceAll(text, []byte(","), []byte(".")), []byte("."))
	parts := bytes.Split(whole, []byte(":"))
	if len(parts) < 2 || len(parts) > 3 {
		return 0
	}
	for _, part := range parts {
		n, ok := digits(part, 4)
		if !ok {
			return 0
		}
		d = d*60 + time.Duration(n)*time.Second
	}
	if n, ok := digits(fraction, 3); ok {
		d += time.Duration(n) * time.Millisecond
	}
	return d
}

func digits(text []byte, most int) (n int, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(text) > 0 && len(text) <= most
}

// Usage implements [meter.Counter].
func (s *subtitles) Usage(complete bool) meter.Usage {
	u := s.Counter.Usage(complete)
	if s.failed {
		return u
	}
	u.Length = max(s.call.Length, meter.Quantity(s.end/time.Microsecond))
	if complete {
		u.Unanswered = true
		for class, n := range u.Units {
			if n > 0 && class != meter.Calls && class != meter.Event && class != meter.Byte {
				u.Unanswered = false
			}
		}
	}
	return u
}
