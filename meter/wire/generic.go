package wire

import "github.com/tallygate/tallygate/meter"

// GenericDialect reads nothing of an answer but where it ends.
var GenericDialect = Dialect{End: endGeneric, Stop: stopGeneric}

// Generic counts the calls, events and bytes of an API that no format knows.
var Generic = &API{Dialect: New(GenericDialect)}

func endGeneric(_ *State, m *Message) Verdict {
	if m.Is("[DONE]") {
		return Final
	}
	return Pass
}

// stopGeneric returns an event named error, in the form of errors that most SDKs understand.
func stopGeneric(code, message string) []Note {
	return []Note{{Event: "error", Data: JSON(map[string]any{"error": map[string]string{"type": code, "code": code, "message": message}})}}
}

var _ meter.Format = (*API)(nil)
