package x402

import (
	"encoding/json"

	"github.com/tallygate/tallygate/gateway"
)

// The binding to the Model Context Protocol: https://github.com/coinbase/x402/blob/main/specs/transports-v2/mcp.md
const metaPayment = "x402/payment"

// MetaName implements [gateway.ToolRail].
func (*Rail) MetaName() string { return metaPayment }

// TakeTool implements [gateway.ToolRail]. The payment may be of either version.
func (r *Rail) TakeTool(sent json.RawMessage) (gateway.Payable, error) {
	var p payment
	if len(sent) > maxHeader || json.Unmarshal(sent, &p) != nil {
		return gateway.Payable{}, refuse("invalid_payload", "the payment in _meta is not as x402 has it, or has more than %d bytes", maxHeader)
	}
	paid, err := r.read(p)
	paid.Secret = sent
	return paid, err
}

// ChallengeTool implements [gateway.ToolRail]. It makes no offer of version 1, since a result has room for one version.
func (r *Rail) ChallengeTool(need gateway.Need) any {
	required := r.required(need)
	extensions := r.extensions(need.URL, need.At)
	delete(extensions, extensionSignIn) // a proof comes in a header
	required.Extensions = extensions
	return required
}
