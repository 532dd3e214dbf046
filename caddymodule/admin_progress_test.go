package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTasksTellHowFarTheyAre: a command sees the steps that a task on the server tells, and then its result or its error.
func TestTasksTellHowFarTheyAre(t *testing.T) {
	t.Parallel()
	failure := errors.New("the disk is full")
	var fails error
	work := task{run: func(_ context.Context, on bench, _ json.RawMessage, w io.Writer) error {
		on.progress.Tell("transfers", 1, 2)
		on.progress.Tell("transfers", 2, 2) // too soon after the other
		if fails == nil {
			_, _ = io.WriteString(w, `{"good":true}`)
		}
		return fails
	}}
	for _, fails = range []error{nil, failure} {
		recorded := httptest.NewRecorder()
		if err := tellProgress(recorded, httptest.NewRequest("POST", "/", nil), work, bench{}, nil); err != nil {
			t.Fatal(err)
		}
		told, result := 0, new(bytes.Buffer)
		err := readProgress(recorded.Body, result, func(step string, done, total int64) {
			if told++; step != "transfers" || done != 1 || total != 2 {
				t.Errorf("%s %d of %d", step, done, total)
			}
		})
		if told != 1 || fails == nil && (err != nil || result.String() != `{"good":true}`) || fails != nil && (err == nil || err.Error() != fails.Error()) {
			t.Errorf("told %d times, result %q, %v", told, result, err)
		}
	}
	if err := readProgress(strings.NewReader(`{"at":{"step":"transfers","done":1}}`), io.Discard, nil); err == nil {
		t.Error("an answer without its result")
	}
}
