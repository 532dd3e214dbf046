package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A journal is a bucket whose name contains its number. It holds the changes of groups in the order in which they were committed. The
// changes of a group are one text, which is cut into numbered chunks. There are at most two journals: that of the layer that is being
// folded, and that of the layer that takes new groups.
//
// In the text, a change is the length of its key, the key, the length of its value plus one, and the value. A deletion has the length 0
// and no value. Lengths are uvarints.

const (
	journalPrefix = "journal"
	// chunkSize is the largest size of a chunk, in bytes. Chunks should be small: a commit also writes again the chunks that share a page
	// with its own, and bbolt puts two to four of them on a page.
	chunkSize = 1 << 10
)

func journalName(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(journalPrefix), number)
}

// journalNumber returns the number in a journal's name. If name is not a journal's, ok is false.
func journalNumber(name []byte) (number uint64, ok bool) {
	rest, ok := bytes.CutPrefix(name, []byte(journalPrefix))
	if !ok || len(rest) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(rest), true
}

// encodeChanges returns a group's text, and the offset of each change in it.
func encodeChanges(changes []change) (text []byte, offsets []uint32) {
	size := 0
	for _, c := range changes {
		size += len(c.key) + len(c.value) + 2*binary.MaxVarintLen32
	}
	text, offsets = make([]byte, 0, size), make([]uint32, len(changes))
	for i, c := range changes {
		offsets[i] = uint32(len(text))
		text = binary.AppendUvarint(text, uint64(len(c.key)))
		text = append(text, c.key...)
		if c.value == nil {
			text = append(text, 0)
			continue
		}
		text = binary.AppendUvarint(text, uint64(len(c.value))+1)
		text = append(text, c.value...)
	}
	return text, offsets
}

// nextField reads a length and as many bytes. The stored length is larger by surplus. If the text can't be read, ok is false.
func nextField(text []byte, surplus uint64) (field, rest []byte, ok bool) {
	length, n := binary.Uvarint(text)
	if n <= 0 || length < surplus || length-surplus > uint64(len(text)-n) {
		return nil, nil, false
	}
	end := n + int(length-surplus)
	return text[n:end:end], text[end:], true
}

// nextKey returns the key of the first change in a text. The text must be known to be valid.
func nextKey(text []byte) []byte {
	key, _, _ := nextField(text, 0)
	return key
}

// nextChange reads the first change in a text, and returns the rest of the text. If the change can't be read, ok is false.
func nextChange(text []byte) (c change, rest []byte, ok bool) {
	c.key, rest, ok = nextField(text, 0)
	if !ok {
		return c, nil, false
	}
	if len(rest) > 0 && rest[0] == 0 {
		return c, rest[1:], true
	}
	c.value, rest, ok = nextField(rest, 1)
	return c, rest, ok
}

// decodeChanges reads the texts of several groups. It calls fn for each change with its offset.
func decodeChanges(text []byte, fn func(offset uint32, c change)) error {
	for rest := text; len(rest) > 0; {
		offset := len(text) - len(rest)
		c, behind, ok := nextChange(rest)
		if !ok || offset > math.MaxUint32 {
			return errors.New("its text can't be read")
		}
		fn(uint32(offset), c)
		rest = behind
	}
	return nil
}

// appendText appends a group's text to a journal.
func appendText(journal *bbolt.Bucket, text []byte, sealed *seals) error {
	journal.FillPercent = 1 // a journal grows only at its end
	number := uint64(0)
	if last, _ := journal.Cursor().Last(); last != nil {
		number = binary.BigEndian.Uint64(last) + 1
	}
	for ; len(text) > 0; number++ {
		n := min(len(text), chunkSize)
		key := binary.BigEndian.AppendUint64(nil, number)
		if err := journal.Put(key, sealed.seal(key, text[:n])); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

// replay reads the journals of a file into layers.
func replay(tx *bbolt.Tx) (l layers, err error) {
	defer contain(&err, []byte(journalPrefix))
	var found []*layer
	err = tx.ForEach(func(name []byte, journal *bbolt.Bucket) error {
		number, ok := journalNumber(name)
		if !ok {
			return nil
		}
		read, err := readJournal(number, journal)
		found = append(found, read)
		return err
	})
	if err != nil {
		return l, err
	}
	switch len(found) {
	case 0:
		l.active = newLayer(1, 0)
	case 1:
		l.active = found[0]
	case 2:
		l.frozen, l.active = found[0], found[1]
	default:
		return l, &ledger.CorruptError{Key: []byte(journalPrefix), Detail: fmt.Sprintf("there are %d journals", len(found))}
	}
	return l, nil
}

func readJournal(number uint64, journal *bbolt.Bucket) (*layer, error) {
	damaged := func(key []byte, detail string) error {
		return &ledger.CorruptError{Key: fmt.Appendf(nil, "%s %d, chunk %x", journalPrefix, number, key), Detail: detail}
	}
	var text []byte
	next := uint64(0)
	err := journal.ForEach(func(key, sealed []byte) error {
		if len(key) != 8 || binary.BigEndian.Uint64(key) != next {
			return damaged(key, fmt.Sprintf("the chunk is out of order; chunk %d should be here", next))
		}
		next++
		chunk, err := unseal(key, sealed)
		text = append(text, chunk...)
		return err
	})
	if err != nil {
		return nil, err
	}
	var offsets []uint32
	if err := decodeChanges(text, func(offset uint32, _ change) { offsets = append(offsets, offset) }); err != nil {
		return nil, damaged(nil, err.Error())
	}
	return newLayer(number, len(offsets)).with(text, inOrder(text, offsets)), nil
}

// inOrder sorts the offsets of a text's changes by their keys. Of several changes of a key it keeps the last one.
func inOrder(text []byte, offsets []uint32) []uint32 {
	slices.SortFunc(offsets, func(a, b uint32) int {
		return cmp.Or(bytes.Compare(nextKey(text[a:]), nextKey(text[b:])), cmp.Compare(b, a))
	})
	return slices.CompactFunc(offsets, func(a, b uint32) bool {
		return bytes.Equal(nextKey(text[a:]), nextKey(text[b:]))
	})
}
