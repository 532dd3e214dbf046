package escrow

import (
	"strings"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A provider keeps resources for its customer: files, responses, batches. To the provider all payers are one customer. So the books note
// which payer made which resource, in the operation that charges the call.

// Resource is something that the provider of a payee keeps.
type Resource struct {
	Payee string
	Kind  string // the provider's collection, such as "files"
	ID    string // the provider's id, at most [MaxResourceID] bytes
}

// MaxResourceID is how many bytes the id of a resource may have.
const MaxResourceID = 256

// ownership is what is noted of a resource.
type ownership struct {
	Owner string `cbor:"1,keyasint"` // the payer that made it
}

func (r Resource) key() []byte { return resourceTable.key(r.Payee, r.Kind, r.ID) }

// valid reports whether the resource can be noted.
func (r Resource) valid() bool {
	return r.Payee != "" && r.ID != "" && len(r.ID) <= MaxResourceID && strings.IndexByte(r.Kind+r.ID, 0) < 0
}

// Own notes that a payer has made resources. A resource that is noted already keeps its owner: an id that a provider tells again, or that one
// payer chooses after another, takes nothing away.
func (t *Tx) Own(payer string, made ...Resource) error {
	if payer == "" { // nobody known made the call
		return nil
	}
	for _, r := range made {
		if !r.valid() {
			continue
		}
		if noted, err := t.ledger.Get(r.key()); err != nil {
			return err
		} else if noted != nil {
			continue
		}
		if err := t.put(r.key(), ownership{Owner: payer}); err != nil {
			return err
		}
	}
	return nil
}

// Disown forgets a payer's resources, which the provider keeps no longer. Those of others stay as they are.
func (t *Tx) Disown(payer string, gone ...Resource) error {
	for _, r := range gone {
		if !r.valid() {
			continue
		}
		var noted ownership
		if found, err := load(t.ledger, r.key(), &noted); err != nil {
			return err
		} else if found && noted.Owner == payer {
			t.ledger.Delete(r.key())
		}
	}
	return nil
}

// Owners returns which payers made the resources, each at the place of its resource. The owner of a resource that is not noted is empty.
func (b *Book) Owners(resources []Resource) ([]string, error) {
	owners := make([]string, len(resources))
	err := b.view(func(reader ledger.Reader) error {
		for i, r := range resources {
			if !r.valid() {
				continue
			}
			var noted ownership
			if _, err := load(reader, r.key(), &noted); err != nil {
				return err
			}
			owners[i] = noted.Owner
		}
		return nil
	})
	return owners, err
}
