package caddymodule

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// TestACloudEventHasSharedTagsAlone: the event of a charge is the payee's, and has the tags that the payer shares with it.
func TestACloudEventHasSharedTagsAlone(t *testing.T) {
	text, err := json.Marshal(cloudEvent(escrow.Charge{Payer: "alice", Payee: "shop", Tags: map[string]string{"team": "red", "shared.order": "7"}}))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"tags":{"shared.order":"7"}`) {
		t.Errorf("the event is %s", text)
	}
}
