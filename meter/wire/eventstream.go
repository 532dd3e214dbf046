package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/tallygate/tallygate/meter/sse"
)

// amazonSplitter splits application/vnd.amazon.eventstream into its messages.
// https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html (the format), and the SDK's own decoder.
type amazonSplitter struct {
	decoder *eventstream.Decoder
	frame   []byte // the message so far, at most MaxEvent bytes of it
	size    int    // of the message in bytes, 0 while it is not known
	read    int    // bytes of the message so far
	name    string
	hasData bool
}

func newAmazonSplitter() *amazonSplitter {
	return &amazonSplitter{decoder: eventstream.NewDecoder()}
}

// minFrame is the size of the least message: the prelude, its checksum, and the message's checksum.
const minFrame = 16

func (s *amazonSplitter) scan(p []byte, data func([]byte)) (n int, end sse.End) {
	for n < len(p) {
		take := len(p) - n
		if s.size == 0 {
			take = min(take, 4-s.read)
		} else {
			take = min(take, s.size-s.read)
		}
		if len(s.frame)+take <= MaxEvent {
			s.frame = append(s.frame, p[n:n+take]...)
		}
		s.read += take
		n += take
		if s.size == 0 && s.read == 4 {
			s.size = max(minFrame, int(min(binary.BigEndian.Uint32(s.frame), 1<<30)))
		}
		if s.read == s.size {
			s.decode(data)
			return n, sse.Event
		}
	}
	return n, sse.More
}

// decode reads a complete message. In the stream of an InvokeModel its payload is {"bytes":BASE64} of the model's own JSON.
func (s *amazonSplitter) decode(data func([]byte)) {
	s.hasData = true
	if len(s.frame) != s.size {
		return
	}
	m, err := s.decoder.Decode(bytes.NewReader(s.frame), nil)
	if err != nil {
		return
	}
	if v, ok := m.Headers.Get(eventstreamType).(eventstream.StringValue); ok {
		s.name = string(v)
	}
	if v, ok := m.Headers.Get(eventstreamException).(eventstream.StringValue); ok {
		s.name = string(v)
	}
	if s.name == "chunk" {
		var chunk struct {
			Bytes []byte `json:"bytes"`
		}
		if json.Unmarshal(m.Payload, &chunk) == nil && chunk.Bytes != nil {
			data(chunk.Bytes)
			return
		}
	}
	data(m.Payload)
}

const (
	eventstreamType      = ":event-type"
	eventstreamException = ":exception-type"
)

func (s *amazonSplitter) event() (string, bool) { return s.name, s.hasData }
func (s *amazonSplitter) partial() bool         { return false }
func (s *amazonSplitter) next() {
	s.frame, s.size, s.read, s.name, s.hasData = s.frame[:0], 0, 0, "", false
}

func (s *amazonSplitter) finish() []byte { return nil }

// write returns a message that is an exception, whose type is the note's event.
func (s *amazonSplitter) write(n Note) []byte {
	var out bytes.Buffer
	m := eventstream.Message{Payload: n.Data}
	m.Headers.Set(":message-type", eventstream.StringValue("exception"))
	m.Headers.Set(eventstreamException, eventstream.StringValue(n.Event))
	m.Headers.Set(":content-type", eventstream.StringValue("application/json"))
	if err := eventstream.NewEncoder().Encode(&out, m); err != nil {
		return nil
	}
	return out.Bytes()
}
