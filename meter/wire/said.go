package wire

import (
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
	"github.com/tallygate/tallygate/meter/tokens"
)

// spoken counts what a client says over a connection that a model reads: text, as in a [Prompt], and recordings.
type spoken struct {
	promptSink
	reader *skim.Reader
	sound  int64 // characters of recordings in base64
	raw    int64 // bytes of messages that are no JSON
}

// soundPaths are where a message has a recording, in base64. A recording at any other place counts as text, which is more.
//
// https://platform.openai.com/docs/api-reference/realtime-client-events, https://ai.google.dev/api/live
var soundPaths = []string{
	"audio", "item.content.*.audio", "response.input.*.content.*.audio",
	"realtimeInput.audio.data", "realtimeInput.mediaChunks.*.data", "realtimeInput.media_chunks.*.data",
	"realtime_input.audio.data", "realtime_input.mediaChunks.*.data", "realtime_input.media_chunks.*.data",
}

var saidPrompt = NewPrompt(0, 0, soundPaths, nil)

// sampleSaid is of how many pieces one is tokenised, after the first maxPrompt bytes.
const sampleSaid = 8

func newSpoken(model string) *spoken {
	encoding := tokens.ForModel(model)
	s := &spoken{promptSink: promptSink{others: saidPrompt.others, first: tokens.NewText(encoding), rest: tokens.NewText(encoding), oneIn: sampleSaid}}
	s.reader = skim.New(saidPrompt.paths, s)
	return s
}

// Text implements [skim.Sink].
func (s *spoken) Text(i int, piece []byte) {
	if i < s.others {
		s.sound += int64(len(piece))
		return
	}
	s.promptSink.Text(i, piece)
}

// end ends a message, and returns what was said so far.
func (s *spoken) end() meter.Said {
	s.reader.Close()
	s.reader.Reset()
	s.names, s.head, s.state = 0, s.head[:0], unsure
	return meter.Said{Tokens: s.tokens(), Sound: s.sound*3/4 + s.raw}
}
