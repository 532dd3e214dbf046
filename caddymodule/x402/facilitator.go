package x402

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// facilitator is a server that verifies and settles payments.
type facilitator struct {
	url     string
	headers map[string]string
	client  *http.Client
}

// order is what the facilitator is asked about: a payment, and what it must be.
type order struct {
	Version      int          `json:"x402Version"`
	Payment      payment      `json:"paymentPayload"`
	Requirements requirements `json:"paymentRequirements"`
}

// maxAnswer is how many bytes of a facilitator's answer are read.
const maxAnswer = 64 << 10

func newFacilitator(url string, headers map[string]string) facilitator {
	return facilitator{url: strings.TrimSuffix(url, "/"), headers: headers, client: &http.Client{
		// A redirect would take the payment to another server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ask sends an order, and decodes the answer. Facilitators answer with other codes than 200 too if they refuse a payment, so the code alone
// says nothing, except that a server error is no answer.
func (f facilitator) ask(ctx context.Context, what string, order []byte, answer any) error {
	method := http.MethodPost
	if order == nil {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, f.url+"/"+what, bytes.NewReader(order))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	for name, value := range f.headers {
		request.Header.Set(name, value)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the facilitator to %s: %w", what, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the facilitator's answer: %w", err)
	}
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("the facilitator answers with %s", response.Status)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("the facilitator answers with %s, and not in JSON", response.Status)
	}
	return nil
}
