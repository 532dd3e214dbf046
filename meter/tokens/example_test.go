package tokens_test

import (
	"fmt"

	"github.com/tallygate/tallygate/meter/tokens"
)

func ExampleForModel() {
	for _, model := range []string{"gpt-4o-mini", "gpt-4", "us.anthropic.claude-haiku-4-5"} {
		encoding := tokens.ForModel(model)
		fmt.Println(model, encoding.Name, encoding.Count("An owl turns its head, not its eyes."))
	}
	// Output:
	// gpt-4o-mini o200k_base 10
	// gpt-4 cl100k_base 10
	// us.anthropic.claude-haiku-4-5 claude 11
}
