package bedrock

import (
	"slices"
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// imageModels are parts of the ids of models that make images.
// https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
var imageModels = []string{"nova-canvas", "titan-image", "stability."}

// namesImages reports whether a model makes images.
func namesImages(id string) bool {
	id = strings.ToLower(id)
	return slices.ContainsFunc(imageModels, func(part string) bool { return strings.Contains(id, part) })
}

// invokeImages reads generated images: in images (Amazon's and Stability's models) or in artifacts (Stable Diffusion XL). Their number is
// what is charged. The headers may state tokens too.
// https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html
var invokeImages = wire.Dialect{
	Rules: []wire.Rule{
		{Path: "images.*", Mark: true, In: wire.Whole}, {Path: "artifacts.*", Mark: true, In: wire.Whole},
		{Path: "error", Mark: true}, {Path: "error"},
	},
	States: true,
	Start:  startInvoke,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		n := max(m.Count("images.*"), m.Count("artifacts.*"))
		if n > 0 {
			t.Sums[meter.AskedImage] = meter.Whole(n)
		}
		t.Failed = t.Failed || n == 0 && m.Failed("error")
		return wire.Pass
	},
}
