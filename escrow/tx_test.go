package escrow

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestOperationsWaitForNothing: no method that an operation can reach through its Tx waits for another operation, since that one would run after it.
// Methods that wait belong to Book and Ledger and take a context, so a Tx must contain neither of them.
func TestOperationsWaitForNothing(t *testing.T) {
	waits := []reflect.Type{reflect.TypeFor[*Book](), reflect.TypeFor[*ledger.Ledger](), reflect.TypeFor[*Authorisation]()}
	tx := reflect.TypeFor[*Tx]()
	for i := range tx.Elem().NumField() {
		field := tx.Elem().Field(i)
		if field.Anonymous {
			t.Errorf("Tx embeds %s, with all its methods", field.Type)
		}
		if slices.Contains(waits, field.Type) {
			t.Errorf("Tx has %s, a %s", field.Name, field.Type)
		}
	}
	for _, of := range []reflect.Type{tx, reflect.TypeFor[*ledger.Tx]()} {
		if of.NumMethod() == 0 {
			t.Errorf("%s has no methods", of)
		}
		for i := range of.NumMethod() {
			method := of.Method(i)
			for in := range method.Type.NumIn() {
				if method.Type.In(in) == reflect.TypeFor[context.Context]() {
					t.Errorf("%s.%s takes a context: what does it wait for?", of, method.Name)
				}
			}
			for out := range method.Type.NumOut() {
				if slices.Contains(waits, method.Type.Out(out)) {
					t.Errorf("%s.%s returns a %s", of, method.Name, method.Type.Out(out))
				}
			}
		}
	}
	// Of a Book's methods an operation has only those that look at what it has written itself.
	book, own := reflect.TypeFor[*Book](), []string{"Currency", "Now", "Wallet"}
	for i := range book.NumMethod() {
		name := book.Method(i).Name
		if _, both := tx.MethodByName(name); both && !slices.Contains(own, name) {
			t.Errorf("Tx has %s, as Book does", name)
		}
	}
}
