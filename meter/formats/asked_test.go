package formats_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

// What the request itself asks for is read from its body, in JSON and in forms.
func TestAsked(t *testing.T) {
	form := func(fields ...string) string {
		var b strings.Builder
		for i := 0; i < len(fields); i += 2 {
			b.WriteString("--x\r\nContent-Disposition: form-data; name=\"" + fields[i] + "\"\r\n\r\n" + fields[i+1] + "\r\n")
		}
		return b.String() + "--x--\r\n"
	}
	tests := []struct {
		name, path, body string
		asked            string
		unsaid           meter.Class
	}{
		{"speech", "/v1/audio/speech", `{"model":"tts-1","input":"hello"}`, "input_character=5", ""},
		{"characters, not bytes", "/v1/audio/speech", `{"model":"tts-1","input":"h\u00e9\ud83d\ude00\n日本"}`, "input_character=6", ""},
		{"no text", "/v1/audio/speech", `{"model":"tts-1"}`, "", meter.InputCharacter},
		{"a text of null", "/v1/audio/speech", `{"model":"tts-1","input":null}`, "", meter.InputCharacter},
		{"the longer of two", "/v1/audio/speech", `{"model":"tts-1","input":"a","text":"abc"}`, "input_character=3", ""},
		{"ElevenLabs", "/v1/text-to-speech/voice/stream", `{"text":"hello","model_id":"m"}`, "input_character=5", ""},
		{"Deepgram", "/v1/speak", `{"text":"hello"}`, "input_character=5", ""},
		{"an image", "/v1/images/generations", `{"model":"dall-e-3","prompt":"x"}`, "asked_image=1", ""},
		{"images", "/v1/images/generations", `{"model":"dall-e-2","prompt":"x","n":4}`, "asked_image=4", ""},
		{"images in a form", "/v1/images/edits", form("model", "dall-e-2", "n", "3"), "asked_image=3", ""},
		{"a video", "/v1/videos", `{"model":"sora-2","prompt":"x","seconds":"8"}`, "asked_second=8", ""},
		{"a video, in a number", "/v1/videos", `{"model":"sora-2","prompt":"x","seconds":4.5}`, "asked_second=5", ""},
		{"videos", "/v1/videos/generations", `{"model":"grok","prompt":"x","duration":10,"n":2}`, "asked_second=20", ""},
		{"the longer video", "/v1/videos", `{"model":"sora-2","seconds":"4","duration":12}`, "asked_second=12", ""},
		{"a video in a form", "/v1/videos", form("model", "sora-2", "seconds", "12"), "asked_second=12", ""},
		{"the longer video in a form", "/v1/videos", form("model", "sora-2", "seconds", "4", "duration", "60"), "asked_second=60", ""},
		{"videos in a form", "/v1/videos", form("model", "sora-2", "duration", "6", "n", "1", "num_results", "3"), "asked_second=18", ""},
		{"a video of unknown length", "/v1/videos", `{"model":"sora-2","prompt":"x"}`, "", meter.AskedSecond},
		{"a remix", "/v1/videos/video_1/remix", `{"prompt":"x"}`, "", meter.AskedSecond},
		{"Veo", "/v1beta/models/veo-3:predictLongRunning", `{"instances":[{"prompt":"x"}],"parameters":{"durationSeconds":8,"sampleCount":2}}`, "asked_second=16", ""},
		{"Veo, of unknown length", "/v1beta/models/veo-3:predictLongRunning", `{"instances":[{"prompt":"x"}]}`, "", meter.AskedSecond},
		{"a container", "/v1/containers", `{"name":"a"}`, "code_session=1,container_minute=5", ""},
		{"a large container", "/v1/containers", `{"name":"a","memory_limit":"16g"}`, "code_session=16,container_minute=80", ""},
		{"Bedrock: Nova Canvas", "/model/amazon.nova-canvas-v1:0/invoke", `{"taskType":"TEXT_IMAGE","textToImageParams":{"text":"x"},"imageGenerationConfig":{"numberOfImages":3,"width":512}}`, "asked_image=3", ""},
		{"Bedrock: Titan", "/model/amazon.titan-image-generator-v2:0/invoke", `{"taskType":"TEXT_IMAGE","textToImageParams":{"text":"x"}}`, "asked_image=1", ""},
		{"Bedrock: Stability, in a region", "/model/us.stability.stable-image-inpaint-v1:0/invoke", `{"prompt":"x"}`, "asked_image=1", ""},
		{"Bedrock: no images", "/model/amazon.titan-text-express-v1/invoke", `{"inputText":"x"}`, "", ""},
		{"a chat", "/v1/chat/completions", `{"model":"m","n":2,"seconds":7,"messages":[]}`, "", ""},
	}
	for _, test := range tests {
		head := meter.Head{Method: "POST", Path: test.path, Header: http.Header{"Content-Type": {"application/json"}}}
		if strings.HasPrefix(test.body, "--x") {
			head.Header.Set("Content-Type", "multipart/form-data; boundary=x")
		}
		c, err := formats.Inspect(head, []byte(test.body))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if c.Asked.String() != test.asked || c.Unsaid != test.unsaid {
			t.Errorf("%s: asked for %q, unsaid %q", test.name, c.Asked, c.Unsaid)
		}
	}
	for _, body := range []string{
		`{"model":"sora-2","seconds":"-4"}`, `{"model":"sora-2","seconds":0}`, `{"model":"sora-2","seconds":0.5}`, `{"model":"sora-2","seconds":"four"}`, `{"model":"sora-2","seconds":[4]}`,
		`{"model":"sora-2","seconds":"4","seconds":"1"}`, `{"model":"sora-2","seconds":4,"n":2000}`,
	} {
		if c, err := post("/v1/videos", body); err == nil {
			t.Errorf("%s is taken for %v", body, c.Asked)
		}
	}
	for path, bodies := range map[string][]string{
		"/v1/audio/speech":      {`{"input":["long"],"text":"a"}`, `{"input":{"ssml":"long"},"text":"a"}`, `{"input":"a","text":7}`, `{"input":["a","b"]}`},
		"/v1/speak":             {`{"text":"a","input":["long"]}`},
		"/v1/text-to-speech/vo": {`{"text":["long"]}`},
	} {
		for _, body := range bodies {
			if c, err := post(path, body); err == nil {
				t.Errorf("%s is taken for %v", body, c.Asked)
			}
		}
	}
}
