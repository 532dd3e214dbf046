package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// progressType is the media type of a task's result that a command asks for on a terminal: lines of JSON that say how far the task is, then
// one with the result or the error.
const progressType = "application/vnd.tallygate.progress+jsonl"

// progressLine is one of these lines. It has one of its fields.
type progressLine struct {
	At     *progressAt     `json:"at,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

type progressAt struct {
	Step  string `json:"step"`
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
}

// tellEvery is the least time between two lines that say how far a task is.
const tellEvery = 100 * time.Millisecond

// tellProgress runs a task and tells meanwhile how far it is.
func tellProgress(w http.ResponseWriter, r *http.Request, t task, on bench, args []byte) error {
	w.Header().Set("Content-Type", progressType)
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	var told time.Time
	on.progress = func(step string, done, total int64) {
		if time.Since(told) < tellEvery {
			return
		}
		told = time.Now()
		_ = lines.Encode(progressLine{At: &progressAt{step, done, total}})
		_ = flush.Flush()
	}
	var result bytes.Buffer
	if err := t.run(r.Context(), on, args, &result); err != nil {
		return lines.Encode(progressLine{Error: plainly(err).Error()})
	}
	return lines.Encode(progressLine{Result: result.Bytes()})
}

// readProgress reads what tellProgress has written: it passes the result on to w, and tells how far the task is.
func readProgress(body io.Reader, w io.Writer, progress ledger.Progress) error {
	for lines := json.NewDecoder(body); ; {
		var line progressLine
		if err := lines.Decode(&line); err != nil {
			return fmt.Errorf("the server's answer ended before its result: %w", err)
		}
		switch {
		case line.Error != "":
			return errors.New(line.Error)
		case line.Result != nil:
			_, err := w.Write(line.Result)
			return err
		case line.At != nil:
			progress.Tell(line.At.Step, line.At.Done, line.At.Total)
		}
	}
}
