package openai

import (
	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

var (
	embeddingsAPI     = &wire.API{Name: "embeddings", Dialect: wire.New(embeddings)}
	moderationsAPI    = &wire.API{Name: "moderations", Dialect: wire.New(moderations)}
	imagesAPI         = &wire.API{Name: "images", Dialect: wire.New(images)}
	transcriptionsAPI = &wire.API{Name: "audio.transcriptions", Dialect: wire.New(transcriptions)}
	speechAPI         = &wire.API{Name: "audio.speech", Dialect: wire.New(speech)}
	videosAPI         = &wire.API{Name: "videos", Dialect: wire.New(videos)}
	ocrAPI            = &wire.API{Name: "ocr", Dialect: wire.New(ocr)}
)

// embeddings reads embeddings. They state prompt_tokens, or only total_tokens (Voyage, Jina, rerank by OpenRouter). All tokens are input.
var embeddings = wire.Dialect{
	Rules: []wire.Rule{{Path: "model"}, {Path: "usage"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.Model = m.Get("model").String()
		if u := m.Get("usage"); u.IsObject() {
			t.State(InputUsage(u))
			t.Cost = cost(u)
		}
		return wire.Pass
	},
	Prompt: wire.NewPrompt(0, 0, []string{"input", "input.*", "query", "documents.*", "documents.*.text"}, nil).Tokens,
}

// moderations reads moderations. At OpenAI they are free and state no usage. At Mistral they are not free, and state one.
var moderations = wire.Dialect{Rules: embeddings.Rules, End: embeddings.End}

// InputUsage reads a usage of input only.
func InputUsage(u gjson.Result) (s wire.Stated) {
	s.HasPrompt, s.HasCompletion = true, true
	for _, key := range []string{"prompt_tokens", "input_tokens", "total_tokens"} {
		if s.Prompt = wire.Number(u.Get(key), &s.Suspect); s.Prompt > 0 {
			break
		}
	}
	s.ImageInput = wire.Number(u.Get("prompt_tokens_details.image_tokens"), &s.Suspect)
	return s
}

// images reads generated images. The gpt-image models state tokens, others state nothing. Output tokens are those of images, unless the
// usage says otherwise. The images themselves are counted, since a request may ask for several by a field that only its provider knows.
// https://platform.openai.com/docs/api-reference/images-streaming
var images = wire.Dialect{
	Rules: []wire.Rule{{Path: "type", In: wire.Stream}, {Path: "model"}, {Path: "usage"}, {Path: "error", Mark: true}, {Path: "error"},
		{Path: "data.*.url", Mark: true, In: wire.Whole}, {Path: "data.*.b64_json", Mark: true, In: wire.Whole}, {Path: "images.*", Mark: true, In: wire.Whole}},
	States: true,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.Failed = t.Failed || m.Failed("error")
		if v := m.Get("model").String(); v != "" {
			t.Model = v
		}
		if u := m.Get("usage"); u.IsObject() {
			s := usage(u)
			if !u.Get("output_tokens_details").Exists() && !u.Get("completion_tokens_details").Exists() {
				s.ImageOutput = s.Completion
			}
			t.State(s)
			t.Cost = cost(u)
		}
		if n := max(m.Count("data.*.url"), m.Count("data.*.b64_json"), m.Count("images.*")); n > 0 {
			t.Sums[meter.AskedImage] = meter.Whole(n)
		}
		switch m.Get("type").String() {
		case "image_generation.completed", "image_edit.completed":
			t.Sums.Add(meter.AskedImage, meter.Whole(1))
			return wire.Last // there is such an event for each of n images
		}
		if m.Is("[DONE]") {
			return wire.Final
		}
		return wire.Pass
	},
	Stop: stopChat,
}

// transcriptions reads transcriptions. They state tokens or, for models that are billed by time, seconds. The formats srt and plain text
// state nothing. verbose_json and Deepgram state the length of the audio.
// https://platform.openai.com/docs/api-reference/audio/transcript-text-done-event
var transcriptions = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "type", In: wire.Stream}, {Path: "model"}, {Path: "usage"}, {Path: "duration"}, {Path: "metadata.duration"},
		{Path: "delta", Text: meter.Output, In: wire.Stream}, {Path: "text", Text: meter.Output, In: wire.Whole},
	},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if v := m.Get("model").String(); v != "" {
			t.Model = v
		}
		u := m.Get("usage")
		switch {
		case u.Get("type").String() == "duration":
			t.State(wire.Stated{HasPrompt: true, HasCompletion: true})
			t.Sums[meter.Second] = wire.Decimal(u.Get("seconds"), &t.Stated.Suspect)
		case u.IsObject():
			t.State(usage(u))
			t.Cost = cost(u)
			if v := u.Get("prompt_audio_seconds"); present(v) { // Mistral
				t.Sums[meter.Second] = wire.Decimal(v, &t.Stated.Suspect)
			}
		default:
			for _, path := range []string{"duration", "metadata.duration"} {
				if v := m.Get(path); v.Exists() {
					t.State(wire.Stated{HasPrompt: true, HasCompletion: true}) // its text is not billed
					t.Sums[meter.Second] = wire.Decimal(v, &t.Stated.Suspect)
				}
			}
		}
		return endMedia(m, "transcript.text.done")
	},
	Stop: stopChat,
}

// speech reads generated speech. A stream states tokens. An answer that is audio states nothing.
var speech = wire.Dialect{
	Rules:  []wire.Rule{{Path: "type", In: wire.Stream}, {Path: "usage"}},
	States: true,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		if u := m.Get("usage"); u.IsObject() {
			s := usage(u)
			s.AudioOutput = s.Completion
			t.State(s)
		}
		return endMedia(m, "speech.audio.done")
	},
	Prompt: wire.NewPrompt(0, 0, []string{"input", "instructions"}, nil).Tokens,
	Stop:   stopChat,
}

// videos reads the jobs that make videos. They state no usage; the request says how long the video will be.
// https://platform.openai.com/docs/api-reference/videos
var videos = wire.Dialect{
	Rules: []wire.Rule{{Path: "model"}, {Path: "id", Makes: "videos"}, {Path: "request_id", Makes: "videos"}}, // the latter: xAI
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.Model = m.Get("model").String()
		t.State(wire.Stated{HasPrompt: true, HasCompletion: true})
		return wire.Pass
	},
}

// endMedia returns the verdict on an event of a stream whose last event has the type done. [DONE] follows it.
func endMedia(m *wire.Message, done string) wire.Verdict {
	switch {
	case m.Is("[DONE]"):
		return wire.Final
	case m.Get("type").String() == done:
		return wire.Terminal
	}
	return wire.Pass
}

// ocr reads Mistral's OCR, which states pages. https://docs.mistral.ai/api/#tag/ocr
var ocr = wire.Dialect{
	Rules: []wire.Rule{{Path: "model"}, {Path: "usage_info.pages_processed"}},
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		t.Model = m.Get("model").String()
		t.State(wire.Stated{HasPrompt: true, HasCompletion: true})
		t.Sums[meter.Page] = meter.Whole(wire.Number(m.Get("usage_info.pages_processed"), &t.Stated.Suspect))
		return wire.Pass
	},
}
