package caddymodule

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// maxReport is the largest size of a provider's report, in bytes.
const maxReport = 64 << 20

// reportProviders has a function for each provider that reads its reports.
var reportProviders = map[string]func([]byte) ([]billedLine, error){
	"openai": readOpenAI, "anthropic": readAnthropic, "openrouter": readOpenRouter,
}

// readReport reads a provider's report, either in the provider's JSON format or as CSV. A CSV file has a line for each day and model, with
// the columns day (or date) and model, and any of requests, input_tokens, output_tokens and amount.
func readReport(provider string, r io.Reader) ([]billedLine, error) {
	read, ok := reportProviders[provider]
	if !ok {
		return nil, fmt.Errorf("provider %q: expected one of openai, anthropic, openrouter", provider)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxReport+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxReport {
		return nil, fmt.Errorf("the report has more than %d bytes", maxReport)
	}
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' && trimmed[0] != '[' {
		read = readCSV
	}
	lines, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("%s's report: %w", provider, err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s's report has no line with a day and a model: group it by model", provider)
	}
	return addUp(lines), nil
}

// pages reads one page or a list of pages. The items of a page are in its field data.
func pages[T any](data []byte) ([]T, error) {
	type page struct {
		Data    []T  `json:"data"`
		HasMore bool `json:"has_more"`
	}
	var list []page
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")) {
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, err
		}
	} else {
		list = make([]page, 1)
		if err := json.Unmarshal(data, &list[0]); err != nil {
			return nil, err
		}
	}
	if len(list) > 0 && list[len(list)-1].HasMore {
		return nil, errors.New("the report has more pages (has_more): fetch these too, and put all pages into a list [page, page, ...]")
	}
	var all []T
	for _, p := range list {
		all = append(all, p.Data...)
	}
	return all, nil
}

func whole(n *int64) *decimal.Decimal {
	if n == nil {
		return nil
	}
	d := decimal.NewFromInt(*n)
	return &d
}

// readOpenAI reads a page of GET /v1/organization/usage/completions (and its siblings), grouped by model, or of GET /v1/organization/costs,
// grouped by line_item: https://platform.openai.com/docs/api-reference/usage
func readOpenAI(data []byte) ([]billedLine, error) {
	type bucket struct {
		Start   int64 `json:"start_time"`
		Results []struct {
			Model    string `json:"model"`
			Input    *int64 `json:"input_tokens"` // cached ones included
			Output   *int64 `json:"output_tokens"`
			Requests *int64 `json:"num_model_requests"`
			LineItem string `json:"line_item"` // "gpt-4o-mini, input"
			Amount   *struct {
				Value json.Number `json:"value"`
			} `json:"amount"`
		} `json:"results"`
	}
	buckets, err := pages[bucket](data)
	var lines []billedLine
	for _, b := range buckets {
		for _, r := range b.Results {
			line := billedLine{Day: time.Unix(b.Start, 0).UTC().Format(time.DateOnly), Model: r.Model}
			line.Input, line.Output, line.Requests = whole(r.Input), whole(r.Output), r.Requests
			if r.Amount != nil {
				line.Model, _, _ = strings.Cut(r.LineItem, ", ")
				if line.Amount, err = amountOf(string(r.Amount.Value), 0); err != nil {
					return nil, err
				}
			}
			if line.Model == "" {
				return nil, errors.New("a result has no model: group usage by model, and costs by line_item")
			}
			lines = append(lines, line)
		}
	}
	return lines, err
}

// readAnthropic reads a page of GET /v1/organizations/usage_report/messages, or of GET /v1/organizations/cost_report, both grouped by model
// (the latter by description): https://docs.anthropic.com/en/api/admin-api/usage-cost. Its amounts are in cents.
func readAnthropic(data []byte) ([]billedLine, error) {
	type bucket struct {
		Start   time.Time `json:"starting_at"`
		Results []struct {
			Model    string `json:"model"`
			Input    *int64 `json:"uncached_input_tokens"`
			Read     int64  `json:"cache_read_input_tokens"`
			Write5m  int64  `json:"cache_creation_5m_input_tokens"`
			Write1h  int64  `json:"cache_creation_1h_input_tokens"`
			Creation struct {
				Write5m int64 `json:"ephemeral_5m_input_tokens"`
				Write1h int64 `json:"ephemeral_1h_input_tokens"`
			} `json:"cache_creation"`
			Output *int64  `json:"output_tokens"`
			Amount *string `json:"amount"`
			What   string  `json:"description"` // of a cost; one of searches or of running code has no model
		} `json:"results"`
	}
	buckets, err := pages[bucket](data)
	var lines []billedLine
	for _, b := range buckets {
		for _, r := range b.Results {
			line := billedLine{Day: b.Start.UTC().Format(time.DateOnly), Model: r.Model}
			if r.Input != nil {
				sum := decimal.Sum(decimal.NewFromInt(*r.Input), decimal.NewFromInt(r.Read), decimal.NewFromInt(r.Write5m), decimal.NewFromInt(r.Write1h),
					decimal.NewFromInt(r.Creation.Write5m), decimal.NewFromInt(r.Creation.Write1h))
				line.Input = &sum
			}
			line.Output = whole(r.Output)
			if r.Amount != nil {
				if line.Amount, err = amountOf(*r.Amount, -2); err != nil {
					return nil, err
				}
				line.Model = cmp.Or(r.Model, r.What)
			}
			if line.Model == "" {
				return nil, errors.New("a result has no model: group usage by model, and costs by description")
			}
			lines = append(lines, line)
		}
	}
	return lines, err
}

// readOpenRouter reads GET /api/v1/activity: https://openrouter.ai/docs/api-reference/analytics/get-user-activity
func readOpenRouter(data []byte) ([]billedLine, error) {
	type activity struct {
		Date     string      `json:"date"`
		Model    string      `json:"model"`
		Usage    json.Number `json:"usage"`
		Requests *int64      `json:"requests"`
		Input    *int64      `json:"prompt_tokens"`
		Output   *int64      `json:"completion_tokens"` // reasoning included
	}
	items, err := pages[activity](data)
	var lines []billedLine
	for _, a := range items {
		day, _, _ := strings.Cut(a.Date, " ")
		line := billedLine{Day: day, Model: a.Model}
		line.Requests, line.Input, line.Output = a.Requests, whole(a.Input), whole(a.Output)
		if a.Usage != "" {
			if line.Amount, err = amountOf(string(a.Usage), 0); err != nil {
				return nil, err
			}
		}
		lines = append(lines, line)
	}
	return lines, err
}

// amountOf reads an amount, exactly, in units of 10^shift of the currency.
func amountOf(text string, shift int32) (*decimal.Decimal, error) {
	d, err := decimal.NewFromString(text)
	if err != nil || len(text) > 100 || d.Exponent() > 30 || d.Exponent() < -60 {
		return nil, fmt.Errorf("amount %.40q is not a number", text)
	}
	d = d.Shift(shift)
	return &d, nil
}

func readCSV(data []byte) ([]billedLine, error) {
	rows, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF")))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, errors.Join(errors.New("the report is neither JSON nor CSV"), err)
	}
	column := func(names ...string) int {
		return slices.IndexFunc(rows[0], func(head string) bool { return slices.Contains(names, strings.ToLower(strings.TrimSpace(head))) })
	}
	day, model := column("day", "date"), column("model")
	if day < 0 || model < 0 {
		return nil, errors.New("the first line must name the columns day (or date) and model")
	}
	requests, amount := column("requests"), column("amount")
	input, output := column("input_tokens"), column("output_tokens")
	var lines []billedLine
	for _, row := range rows[1:] {
		line := billedLine{Day: row[day][:min(len(row[day]), len(time.DateOnly))], Model: row[model]}
		for _, cell := range []struct {
			at   int
			into **decimal.Decimal
		}{{input, &line.Input}, {output, &line.Output}, {amount, &line.Amount}} {
			if cell.at < 0 || row[cell.at] == "" {
				continue
			}
			if *cell.into, err = amountOf(row[cell.at], 0); err != nil {
				return nil, err
			}
		}
		if requests >= 0 && row[requests] != "" {
			n, err := amountOf(row[requests], 0)
			if err != nil || !n.IsInteger() {
				return nil, fmt.Errorf("requests %.40q: expected a whole number", row[requests])
			}
			count := n.IntPart()
			line.Requests = &count
		}
		lines = append(lines, line)
	}
	return lines, nil
}
