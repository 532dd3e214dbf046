package openai

import (
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var realtimeAPI = &wire.API{Name: "realtime", Dialect: wire.New(realtime)}

// realtime reads the messages of a WebSocket. Each response.done states the usage of one response, and these are added up. In the Responses
// API over a WebSocket, response.completed states it. https://platform.openai.com/docs/api-reference/realtime-server-events/response/done
var realtime = wire.Dialect{
	Frames: true,
	Rules: []wire.Rule{
		{Path: "type"},
		{Path: "session.model"},
		{Path: "session.audio.input.transcription.model"},
		{Path: "response.usage"},
		{Path: "response.model"},
		{Path: "usage"},
		{Path: "delta", Text: meter.Output},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		switch m.Get("type").String() {
		case "session.created", "session.updated":
			if v := m.Get("session.model").String(); v != "" {
				t.Model = v
			}
			if v := m.Get("session.audio.input.transcription.model").String(); v != "" {
				t.Scratch = v
			}
		case "response.done", "response.completed", "response.incomplete", "response.failed":
			if v := m.Get("response.model").String(); v != "" {
				t.Model = v
			}
			u := m.Get("response.usage")
			if !u.Get("output_tokens").Exists() {
				u = m.Get("usage") // xAI
			}
			if u.IsObject() {
				t.AddStated(usage(u))
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
		}
		return ""
	},
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Data: wire.JSON(map[string]any{
			"type": "error", "error": map[string]string{"type": code, "code": code, "message": message}})}}
	},
}

// transcribed adds the usage of the model that transcribes speech, which is billed separately from the response.
func transcribed(t *wire.State, m *wire.Message) {
	u := m.Get("usage")
	s := usage(u)
	units := s.Units()
	if u.Get("type").String() == "duration" {
		units.Add(meter.Second, wire.Decimal(u.Get("seconds"), &t.Stated.Suspect))
	}
	model, _ := t.Scratch.(string)
	if model == "" {
		model = "whisper-1"
	}
	t.AddBeside(meter.Pass{Model: model, Units: units})
}

func inspectRealtime(r *wire.Request) *meter.Call {
	c := r.Call(realtimeAPI)
	c.Stream, c.InputOpen, c.Malformed = true, true, false // the query names the model
	return c
}
