package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// schemas makes JSON schemas of the types that routes take and answer.
type schemas struct {
	components map[string]*jsonschema.Schema
	refs       map[reflect.Type]*jsonschema.Schema // references to the answers, for the schemas that contain them
}

func newSchemas(routes []route) *schemas {
	s := &schemas{components: map[string]*jsonschema.Schema{}, refs: map[reflect.Type]*jsonschema.Schema{}}
	for _, rt := range routes {
		s.name(rt.out)
	}
	for t, ref := range maps.Clone(s.refs) {
		s.components[strings.TrimPrefix(ref.Ref, componentPath)] = s.answer(t)
	}
	return s
}

const componentPath = "#/components/schemas/"

// name gives names to the type of an answer and to the types in its lists, so that references can use them.
func (s *schemas) name(t reflect.Type) {
	if t == reflect.TypeFor[none]() || s.refs[t] != nil {
		return
	}
	name := strings.TrimSuffix(t.Name(), "Out")
	s.refs[t] = &jsonschema.Schema{Ref: componentPath + strings.ToUpper(name[:1]) + name[1:]}
	for i := range t.NumField() {
		if f := t.Field(i).Type; f.Kind() == reflect.Slice && f.Elem().Kind() == reflect.Struct {
			s.name(f.Elem())
		}
	}
}

// enum is the schema of a string that is one of the words.
func enum[T ~string](words ...T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, w := range words {
		s.Enum = append(s.Enum, string(w))
	}
	return s
}

// words are the schemas that can't be generated from the Go type, mostly of types with only a few values.
var words = map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[escrow.Status]():             enum(escrow.StatusOpen, escrow.StatusRefundRequested, escrow.StatusDisputed, escrow.StatusReleased, escrow.StatusRefunded, escrow.StatusSettled),
	reflect.TypeFor[holdStatus]():                enum(holdOpen, holdCaptured, holdReturned, holdSettled),
	reflect.TypeFor[escrow.Way]():                enum(escrow.ToPayee, escrow.ToPayer),
	reflect.TypeFor[escrow.MilestoneStatus]():    enum(escrow.MilestonePending, escrow.MilestoneDelivered, escrow.MilestoneAccepted),
	reflect.TypeFor[escrow.ChargeStatus]():       enum(escrow.ChargeStatuses...),
	reflect.TypeFor[escrow.Origin]():             enum(escrow.SelfRegistered, escrow.ByOperator, escrow.ByConfig, escrow.ByRail, escrow.ByMeter),
	reflect.TypeFor[escrow.SubscriptionStatus](): enum(escrow.SubActive, escrow.SubEnding, escrow.SubSuspended, escrow.SubEnded),
	reflect.TypeFor[escrow.EventType]():          enum(escrow.EventTypes...),
	reflect.TypeFor[decimal.Decimal]():           {Type: "string"},
	reflect.TypeFor[time.Time]():                 {Type: "string", Format: "date-time"},
	reflect.TypeFor[json.RawMessage]():           {},
}

// answer returns the schema of an answer. Amounts are strings in it.
func (s *schemas) answer(t reflect.Type) *jsonschema.Schema {
	known := maps.Clone(words)
	known[reflect.TypeFor[ledger.Amount]()] = &jsonschema.Schema{Type: "string", Pattern: `^-?[0-9]+(\.[0-9]{1,9})?$`}
	known[reflect.TypeFor[hours]()] = &jsonschema.Schema{Type: "number"}
	for named, ref := range s.refs {
		if named != t && !embeds(t, named) {
			known[named] = ref
		}
	}
	schema := infer(t, known)
	open(schema)
	return schema
}

// question returns the schema of a request's body, or nil if t has no body. Amounts and hours may be strings or numbers in it.
func question(t reflect.Type) *jsonschema.Schema {
	known := maps.Clone(words)
	known[reflect.TypeFor[ledger.Amount]()] = textOrNumber("a decimal above zero")
	known[reflect.TypeFor[hours]()] = textOrNumber("a number of hours above zero, which may have a fraction")
	known[reflect.TypeFor[overlap]()] = textOrNumber("a number of hours, which may be zero or have a fraction")
	known[reflect.TypeFor[quantity]()] = textOrNumber("a number of units, from zero, with at most six digits after the point")
	known[reflect.TypeFor[score]()] = textOrNumber("a number")
	var fields []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			f.Index, f.Offset = nil, 0
			fields = append(fields, f)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return infer(reflect.StructOf(fields), known)
}

// textOrNumber returns the schema of a string or a number. It is an anyOf and not a list of types, because more of the models that read the
// schemas of tools understand that.
func textOrNumber(description string) *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}}, Description: description}
}

func infer(t reflect.Type, known map[reflect.Type]*jsonschema.Schema) *jsonschema.Schema {
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: known})
	if err != nil {
		panic(fmt.Sprintf("the schema of %s: %v", t, err)) // the table of routes is wrong; a test makes all schemas
	}
	loosen(s)
	return s
}

// loosen says that lists are never null.
func loosen(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if len(s.Types) == 2 && s.Types[0] == "null" && s.Types[1] == "array" {
		s.Type, s.Types = "array", nil
	}
	if len(s.AnyOf) > 0 {
		s.Types = nil // an optional field is a pointer, for which the generator allows null
	}
	loosen(s.Items)
	for _, property := range s.Properties {
		loosen(property)
	}
}

// open allows additional names in the objects of an answer, since later versions may have more.
func open(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if s.AdditionalProperties != nil && s.Properties != nil {
		s.AdditionalProperties = nil
	}
	open(s.Items)
	for _, property := range s.Properties {
		open(property)
	}
}

func embeds(t, inner reflect.Type) bool {
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous && f.Type == inner {
			return true
		}
	}
	return false
}
