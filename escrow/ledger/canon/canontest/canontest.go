// Package canontest compares what package canon writes and reads with what the library does by the tags of the fields.
package canontest

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow/ledger/canon"
)

// Check fails if random records of r's type are not written and read as the library does, or if a record is left to it that has none of the
// fields that are rare. Each field is also tried alone and all are tried together, so a field that was added to the type alone is noticed.
func Check(t *testing.T, library cbor.EncMode, r canon.Record, rare ...string) {
	t.Helper()
	of := reflect.TypeOf(r).Elem()
	var common []string
	for i := range of.NumField() {
		if field := of.Field(i); field.IsExported() && field.Tag.Get("cbor") != "-" && !slices.Contains(rare, field.Name) {
			common = append(common, field.Name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		same(t, library, draw(t, of, nil), true)
		same(t, library, draw(t, of, common), true)
		for _, name := range common {
			same(t, library, draw(t, of, []string{name}), true)
		}
		for _, name := range rare {
			same(t, library, draw(t, of, []string{name}), false)
		}
		some := rapid.SliceOfDistinct(rapid.SampledFrom(common), rapid.ID[string]).Draw(t, "fields")
		same(t, library, draw(t, of, some), true)
	})
}

// same compares how a record is written and read.
func same(t *rapid.T, library cbor.EncMode, r canon.Record, common bool) {
	want, err := library.Marshal(r)
	got, ok := canon.Encode(r)
	if ok && (err != nil || !bytes.Equal(got, want)) {
		t.Fatalf("%+v is written as\n%x, by the library as\n%x (%v)", r, got, want, err)
	}
	if err != nil {
		return
	}
	if ok != common {
		t.Fatalf("%+v is written here: %t", r, ok)
	}
	if read := Read(t, want, r); read != common {
		t.Fatalf("%+v is read here: %t", r, read)
	}
}

// Read fails if a value is not read as the library reads it: here, or else by the library over what was read here. It returns whether it was
// read here.
func Read(t interface{ Fatalf(string, ...any) }, value []byte, r canon.Record) bool {
	of := reflect.TypeOf(r).Elem()
	got, want := reflect.New(of).Interface().(canon.Record), reflect.New(of).Interface()
	wrong := cbor.Unmarshal(value, want)
	ok := canon.Decode(value, got)
	if ok && wrong != nil {
		t.Fatalf("%x is read as %+v; the library: %v", value, got, wrong)
	}
	if !ok {
		if err := cbor.Unmarshal(value, got); (err == nil) != (wrong == nil) || err != nil && err.Error() != wrong.Error() {
			t.Fatalf("%x, tried here first, is read with %v instead of %v", value, err, wrong)
		}
	}
	if wrong == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("%x is read as\n%+v, by the library as\n%+v", value, got, want)
	}
	return ok
}

// Benchmark measures writing and reading, here and by the library.
func Benchmark(b *testing.B, library cbor.EncMode, r canon.Record) {
	value, err := library.Marshal(r)
	if err != nil {
		b.Fatal(err)
	}
	of := reflect.TypeOf(r).Elem()
	run := func(name string, do func(canon.Record) bool) {
		b.Run(of.Name()+"/"+name, func(b *testing.B) {
			b.ReportAllocs()
			into := reflect.New(of)
			for b.Loop() {
				into.Elem().SetZero()
				if !do(into.Interface().(canon.Record)) {
					b.Fatalf("%x", value)
				}
			}
		})
	}
	run("write/library", func(canon.Record) bool { _, err := library.Marshal(r); return err == nil })
	run("write/here", func(canon.Record) bool { _, ok := canon.Encode(r); return ok })
	run("read/library", func(into canon.Record) bool { return cbor.Unmarshal(value, into) == nil })
	run("read/here", func(into canon.Record) bool { return canon.Decode(value, into) })
}

// draw returns a record with random values, none of them empty, in some of its fields.
func draw(t *rapid.T, of reflect.Type, names []string) canon.Record {
	r := reflect.New(of)
	for _, name := range names {
		field := r.Elem().FieldByName(name)
		field.Set(value(t, field.Type(), name))
		if field.IsZero() {
			t.Fatalf("%s is zero", name)
		}
	}
	return r.Interface().(canon.Record)
}

var texts = rapid.StringN(1, 40, 300)

// value draws a value that is not zero.
func value(t *rapid.T, of reflect.Type, name string) reflect.Value {
	v := reflect.New(of).Elem()
	switch of.Kind() {
	case reflect.String:
		v.SetString(texts.Draw(t, name))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Filter(func(n int64) bool { return n != 0 }).Draw(t, name))
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(rapid.Uint64Range(1, 1<<of.Bits()-1).Draw(t, name))
	case reflect.Pointer:
		v.Set(value(t, of.Elem(), name).Addr())
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).Set(value(t, of.Elem(), name))
		}
	case reflect.Slice:
		for range rapid.IntRange(1, 30).Draw(t, name) {
			v.Set(reflect.Append(v, value(t, of.Elem(), name)))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(of))
		for range rapid.IntRange(1, 30).Draw(t, name) {
			v.SetMapIndex(value(t, of.Key(), name), value(t, of.Elem(), name))
		}
	case reflect.Struct:
		if of == reflect.TypeFor[time.Time]() {
			at := time.Unix(rapid.Int64Range(-1<<36, 1<<38).Draw(t, name), rapid.Int64Range(0, 1e9-1).Draw(t, name)).UTC()
			return reflect.ValueOf(at)
		}
		for i := range v.NumField() {
			v.Field(i).Set(value(t, of.Field(i).Type, name))
		}
	default:
		t.Fatalf("%s is of a type that is not tried yet: %s", name, of)
	}
	return v
}

// Odd are values that are not in the canonical form, or not well-formed: seeds for fuzzing.
var Odd = [][]byte{
	{},
	{0xa0},
	{0xbf, 0x01, 0x05, 0xff},             // a map without a length
	{0xa1, 0x00, 0x05},                   // a key that is zero
	{0xa2, 0x01, 0x05, 0x01, 0x06},       // the same key twice
	{0xa2, 0x02, 0x05, 0x01, 0x06},       // keys in another order
	{0xa2, 0x01, 0x05, 0x18, 0x63, 0x06}, // a key that no record has
	{0xa1, 0x18, 0x01, 0x18, 0x05},       // numbers that are longer than they need be
	{0xa1, 0x20, 0x05},                   // a key below zero
	{0xa1, 0x1b, 0x80, 0, 0, 0, 0, 0, 0, 1, 0x05},                      // a huge key
	{0xa1, 0x03, 0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, // beyond an int64
	{0xa1, 0x01, 0xf6},                                                        // null
	{0xa1, 0x01, 0xf9, 0x3c, 0x00},                                            // a float
	{0xa1, 0x01, 0x62, 0xff, 0xfe},                                            // no text in UTF-8
	{0xa1, 0x07, 0x19, 0x01, 0x00},                                            // beyond a byte
	{0xa1, 0x09, 0xa2, 0x61, 'a', 0x61, 'b', 0x61, 'a', 0x61, 'c'},            // the same name twice
	{0xa1, 0x09, 0xa0},                                                        // an empty map
	{0xa1, 0x18, 0x22, 0x80},                                                  // an empty list
	{0xa1, 0x03, 0x43, 1, 2, 3},                                               // a hash that is too short
	{0xa1, 0x01, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},        // a length beyond the end
	{0xd9, 0xd9, 0xf7, 0xa1, 0x01, 0x05},                                      // with the tag of CBOR
	{0xa1, 0x01, 0x05, 0x00},                                                  // something behind it
	append([]byte{0xa1, 0x17, 0x74}, "2026-11-29T11:30:53Z"...),               // a time
	append([]byte{0xa1, 0x17, 0x78, 25}, "2026-11-29T11:30:53+02:00"...),      // a time of another zone
	append([]byte{0xa1, 0x17, 0x78, 30}, "2026-11-29T11:30:53,123456789Z"...), // a time with a comma
}
