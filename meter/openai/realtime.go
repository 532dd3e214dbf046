package openai

import (
	"net/http"
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var realtimeAPI = &wire.API{Name: "realtime", Dialect: wire.New(realtime)}

// realtime reads the messages of a WebSocket. Each response.done has the usage of one response; the usages are added up.
var realtime = wire.Dialect{
	Frames: true,
	Rules: []wire.Rule{
		{Path: "type"},
		{Path: "session.model"},
		{Path: "session.audio.input.transcription.model"},
		{Path: "session.audio.input.format"}, {Path: "session.audio.output.format"}, {Path: "response.audio.output.format"},
		{Path: "session.input_audio_format"}, {Path: "session.output_audio_format"}, {Path: "response.output_audio_format"},
		{Path: "response.id"},
		{Path: "response.usage"},
		{Path: "response.model"},
		{Path: "usage"},
		{Path: "delta", Text: meter.Output},
	},
	Start: func(t *wire.State, _ http.Header) { t.Scratch = &session{pace: pcm} },
	Sound: func(t *wire.State) (said, answered int64) { return soundAt(t.Scratch.(*session).pace) },
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		s := t.Scratch.(*session)
		s.hears(m)
		switch m.Get("type").String() {
		case "session.created", "session.updated":
			s.answers(t, m.Get("session.model").String())
			if v := m.Get("session.audio.input.transcription.model").String(); v != "" {
				s.transcriber = v
			}
		case "response.created":
			t.Begin(m.Get("response.id").String())
		case "response.done":
			if !t.Peeking() {
				t.End(m.Get("response.id").String())
			}
			s.answers(t, m.Get("response.model").String())
			u := m.Get("response.usage")
			if !u.Get("output_tokens").Exists() {
				u = m.Get("usage") // xAI
			}
			if u.IsObject() {
				t.AddPass(s.model, usage(u))
			}
		case "conversation.item.input_audio_transcription.completed":
			transcribed(t, m)
		}
		return wire.Pass
	},
	Class: func(m *wire.Message, class meter.Class) meter.Class {
		switch m.Get("type").String() {
		case "response.output_text.delta", "response.text.delta", "response.output_audio_transcript.delta",
			"response.audio_transcript.delta", "response.function_call_arguments.delta":
			return class
		case "response.output_audio.delta", "response.audio.delta":
			return meter.AudioOutput
		}
		return ""
	},
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Data: wire.JSON(map[string]any{
			"type": "error", "error": map[string]string{"type": code, "code": code, "message": message}})}}
	},
}

// session is what a connection is about at the moment.
type session struct {
	model       string // that answers
	transcriber string // the model that transcribes what is said
	tiers       []string
	pace        int64 // the least bytes that a second of sound had, in any format: the client chooses the formats
}

// pcm is how many bytes a second of sound has unless the session says otherwise, and telephone how many it has in the formats of G.711.
const (
	pcm       = 2 * 24_000
	telephone = 8_000
)

// soundAt returns how many bytes are a token of what a user says, 10 a second, and of what a model says, 20 a second:
// https://developers.openai.com/api/docs/guides/realtime-costs
func soundAt(pace int64) (said, answered int64) { return pace / 10, pace / 20 }

// sound is that of answers to requests.
func sound(*wire.State) (said, answered int64) { return soundAt(pcm) }

// hears notes the formats of sound that the server states.
func (s *session) hears(m *wire.Message) {
	for _, path := range []string{"session.audio.input.format", "session.audio.output.format", "response.audio.output.format"} {
		format := m.Get(path)
		s.hearsAs(format.Get("type").String(), format.Get("rate").Int())
	}
	for _, path := range []string{"session.input_audio_format", "session.output_audio_format", "response.output_audio_format"} {
		s.hearsAs(m.Get(path).String(), 0)
	}
}

func (s *session) hearsAs(format string, rate int64) {
	switch {
	case strings.Contains(format, "pcmu"), strings.Contains(format, "pcma"), strings.Contains(format, "g711"):
		s.pace = min(s.pace, telephone)
	case rate > 0: // xAI's may be any
		s.pace = min(s.pace, max(2*rate, telephone))
	}
}

// answers notes which model answers from now on. The first is the connection's.
func (s *session) answers(t *wire.State, model string) {
	if model == "" {
		return
	}
	if s.model = model; t.Model == "" {
		t.Model = model
	}
}

// transcribed adds the usage of the model that transcribes speech, which is billed separately from the response.
func transcribed(t *wire.State, m *wire.Message) {
	u := m.Get("usage")
	s := usage(u)
	units := s.Units()
	if u.Get("type").String() == "duration" {
		units.Add(meter.Second, wire.Decimal(u.Get("seconds"), &t.Stated.Suspect))
	}
	model := t.Scratch.(*session).transcriber
	if model == "" {
		model = "whisper-1"
	}
	t.AddBeside(meter.Pass{Model: model, Units: units})
}

// inspectSocket reads a request for a WebSocket. The query may name the model; else the client's first message does.
func inspectSocket(r *wire.Request, api *wire.API) *meter.Call {
	c := r.Call(api)
	c.Stream, c.InputOpen, c.Malformed = true, true, false
	c.Talks = true
	return c
}
