package probe_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
)

// The rows of an answer are counted by their number in its JSON.
func ExampleJSON() {
	rows, err := probe.JSON("result.rows.#")
	if err != nil {
		log.Fatal(err)
	}
	reader := rows.Reader(&meter.Call{}, http.StatusOK, http.Header{"Content-Type": {"application/json"}})
	for _, chunk := range []string{`{"result": {"rows": [{"day": 1}, {"d`, `ay": 2}, {"day": 3}]}}`} {
		reader.Feed([]byte(chunk))
	}
	reader.End()
	count, _, ok := reader.Quantity()
	fmt.Println(count, ok)
	// Output: 3 true
}
