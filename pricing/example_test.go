package pricing_test

import (
	"encoding/json"
	"fmt"
	"log"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// A tariff prices a model's request before it is sent, and its usage after it is answered.
func Example() {
	var tariff pricing.Tariff
	err := json.Unmarshal([]byte(`{"models": [{"glob": "gpt-4o-mini*", "prices": [
		{"amount": "0.15", "per": 1000000, "unit": "input"},
		{"amount": "0.60", "per": 1000000, "unit": "output"}]}]}`), &tariff)
	if err == nil {
		err = tariff.Compile(nil)
	}
	if err != nil {
		log.Fatal(err)
	}
	rates, ok := tariff.For("gpt-4o-mini-2024-07-18")
	if !ok {
		log.Fatal("the model has no price: refuse the request")
	}
	most := rates.MostFor(1000, 500) // tokens of input and output, in nanos of the currency
	fmt.Println("at most", decimal.New(most, -9))

	usage := meter.Usage{Units: meter.Units{meter.Input: meter.Whole(800), meter.Cached: meter.Whole(200), meter.Output: meter.Whole(321)}}
	due, err := rates.Due(usage)
	fmt.Println("due", decimal.New(due, -9), err)
	// Output:
	// at most 0.00045
	// due 0.0003426 <nil>
}

// An explanation has a line for each class of units. Cached tokens without a price of their own are charged as input.
func ExampleRates_Explain() {
	var prices []pricing.Price
	for _, line := range []string{"0.001 per call", "0.15 per 1M input", "0.6 per 1M output"} {
		price, err := pricing.ParsePrice(strings.Fields(line))
		if err != nil {
			log.Fatal(err)
		}
		prices = append(prices, price)
	}
	rates, err := pricing.NewRates(prices) // they add up
	if err != nil {
		log.Fatal(err)
	}
	explained, err := rates.Explain(meter.Usage{Units: meter.Units{
		meter.Calls: meter.Whole(1), meter.Input: meter.Whole(800), meter.Cached: meter.Whole(200), meter.Output: meter.Whole(321)}})
	if err != nil {
		log.Fatal(err)
	}
	for _, line := range explained.Lines {
		fmt.Printf("%-6s %4s x %s = %s\n", line.Class, line.Quantity, line.Price, line.Product)
	}
	fmt.Println("due", explained.Amount)
	// Output:
	// input   800 x 0.15 per 1M = 0.00012
	// cached  200 x 0.15 per 1M = 0.00003
	// output  321 x 0.6 per 1M = 0.0001926
	// call      1 x 0.001 per call = 0.001
	// due 0.0013426
}

// A catalog is a file of LiteLLM's. An entry whose price can't be counted is left out, and so its model has no price.
func ExampleLoadCatalog() {
	catalog, err := pricing.LoadCatalog(strings.NewReader(`{
		"mistral/mistral-large": {"input_cost_per_token": 2e-06, "output_cost_per_token": 6e-06},
		"painter": {"output_cost_per_image": 0.04}}`))
	if err != nil {
		log.Fatal(err)
	}
	markup, err := pricing.ParsePercent("20%")
	if err != nil {
		log.Fatal(err)
	}
	tariff := pricing.Tariff{Catalog: &pricing.CatalogUse{File: "prices.json", Provider: "mistral", Markup: markup}}
	if err := tariff.Compile(catalog); err != nil {
		log.Fatal(err)
	}
	rates, _ := tariff.For("mistral-large")
	fmt.Println(rates.UnitPrices(meter.Usage{Units: meter.Units{meter.Output: meter.Whole(1)}}))
	_, priced := tariff.For("painter")
	fmt.Println(priced, catalog.Problems())
	// Output:
	// map[output:7.2 per 1M]
	// false [painter: no price that can be counted]
}
