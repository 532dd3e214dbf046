package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

func invalid(field, format string, args ...any) error {
	return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: fmt.Sprintf(format, args...), Fields: map[string]string{"field": field}}
}

// decode reads a request into in, a pointer to a struct. Fields with the tag `path` or `query` are read from the URL, and fields with a json
// name from the body. decode returns the body as it arrived. Names that in does not have are refused.
func decode(w http.ResponseWriter, req *http.Request, in any) (body []byte, err error) {
	query := req.URL.Query()
	if err := openCursor(query); err != nil {
		return nil, err
	}
	v := reflect.ValueOf(in).Elem()
	if err := onlyKnown(query, v.Type()); err != nil {
		return nil, err
	}
	for _, field := range reflect.VisibleFields(v.Type()) {
		if name := field.Tag.Get("path"); name != "" {
			v.FieldByIndex(field.Index).SetString(req.PathValue(name))
		} else if name := field.Tag.Get("query"); name != "" {
			if err := setParameter(v.FieldByIndex(field.Index), name, query); err != nil {
				return nil, err
			}
		}
	}
	if req.Method == http.MethodGet {
		return nil, nil
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &escrow.Refusal{Outcome: RequestTooLarge, Detail: fmt.Sprintf("the body has more than %d bytes", maxBody)}
	} else if err != nil {
		return nil, invalid("body", "the body could not be read: %v", err)
	}
	return body, decodeBody(body, in)
}

// decodeBody reads a body into the fields of in that have a json name. An empty body counts as an empty object.
// Other names are refused.
func decodeBody(body []byte, in any) error {
	body = bytes.TrimSpace(body)
	var object map[string]json.RawMessage
	if len(body) > 0 {
		if err := json.Unmarshal(body, &object); err != nil {
			return invalid("body", "the body is not a JSON object: %s", plain(err))
		}
	}
	v := reflect.ValueOf(in).Elem()
	if err := onlyKnownFields(object, v.Type(), ""); err != nil {
		return err
	}
	for _, field := range reflect.VisibleFields(v.Type()) {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		value, given := object[name]
		if !given || string(value) == "null" {
			if !strings.Contains(options, "omit") {
				return invalid(name, "%s is missing", name)
			}
			continue
		}
		if err := json.Unmarshal(value, v.FieldByIndex(field.Index).Addr().Interface()); err != nil {
			return invalid(name, "%s: %s", name, plain(err))
		}
	}
	return nil
}

// plain returns a decoding error in words that do not mention Go's types.
func plain(err error) string {
	var refusal *escrow.Refusal
	if errors.As(err, &refusal) {
		return refusal.Detail
	}
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		where := ""
		if mismatch.Field != "" {
			where = mismatch.Field + " "
		}
		return fmt.Sprintf("%sshould be %s, not %s", where, jsonKind(mismatch.Type), mismatch.Value)
	}
	return err.Error()
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a whole number"
	}
}

// setParameter reads a parameter of the query into a field: a string, a whole number, true or false, or a time.
func setParameter(field reflect.Value, name string, query url.Values) error {
	text := query.Get(name)
	if text == "" {
		return nil
	}
	switch target := field.Addr().Interface().(type) {
	case *place:
		*target = place(query.Get(opened))
	case *string:
		*target = text
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return invalid(name, "%s %.40q: expected a whole number above zero", name, text)
		}
		*target = n
	case *bool:
		if *target = text == "true"; !*target && text != "false" {
			return invalid(name, "%s %.40q: expected true or false", name, text)
		}
	case *time.Time:
		at, err := parseTime(text)
		if err != nil {
			return invalid(name, "%s %.40q: expected a time such as 2026-11-24T12:00:00Z, or a day", name, text)
		}
		*target = at
	default:
		panic(fmt.Sprintf("query parameter %s has the type %T", name, target)) // the table of routes is wrong; a test calls each route
	}
	return nil
}

func parseTime(text string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC(), nil
	}
	return time.Parse(time.DateOnly, text)
}
