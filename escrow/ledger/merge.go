package ledger

import "bytes"

// Cursor goes through changes, in the direction and within the range of a scan.
type Cursor interface {
	// Peek returns the change at the cursor. A nil value means that the record is deleted. At the end, ok is false.
	Peek() (key, value []byte, ok bool)
	// Next moves the cursor to the next change.
	Next()
}

// Merge scans the records of base as they are after the changes. It moves the cursor past a change before it calls fn with it.
func Merge(changes Cursor, base Reader, r Range, fn func(key, value []byte) (more bool, err error)) error {
	more := true
	// emitUpTo calls fn for the changes up to key, or for all that are left if key is nil. It reports whether the record of key in base
	// must be left out, because it was changed or because fn wants no more.
	emitUpTo := func(key []byte) (replaced bool, err error) {
		for more {
			changed, value, ok := changes.Peek()
			if !ok {
				return false, nil
			}
			order := -1
			if key != nil {
				if order = bytes.Compare(changed, key); r.Reverse {
					order = -order
				}
			}
			if order > 0 {
				return false, nil
			}
			changes.Next()
			if value != nil {
				if more, err = fn(changed, value); err != nil {
					return true, err
				}
			}
			if order == 0 {
				return true, nil
			}
		}
		return true, nil
	}
	err := base.Scan(r, func(key, value []byte) (bool, error) {
		replaced, err := emitUpTo(key)
		if err != nil || replaced {
			return more && err == nil, err
		}
		more, err = fn(key, value)
		return more, err
	})
	if err != nil || !more {
		return err
	}
	_, err = emitUpTo(nil)
	return err
}
