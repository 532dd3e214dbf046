// Package audio computes the length of a recording from its container: WAV, MP3 and AAC, FLAC, Ogg, MP4, WebM. It decodes no sound.
// [Length] is all that it exports.
//
// The length is what a decoder plays, and not what a header claims: it is computed from the samples of WAV, from the frames of MP3, AAC and
// FLAC, and from the packets of Opus, Vorbis, AAC and ALAC in Ogg, WebM and MP4. Clocks, times and totals of a container are not believed:
// decoders play on without them. Where decoders may find different sound in a file, its length is unknown.
package audio

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"time"
)

// Length returns how long a recording is, or false if that is unknown. The first bytes of a file alone decide what it is, as they do for
// decoders: what is one container may hold what looks like frames of another.
func Length(file []byte) (d time.Duration, ok bool) {
	begins := func(magic string) bool { return bytes.HasPrefix(file, []byte(magic)) }
	switch {
	case begins("RIFF"), begins("RF64"):
		d = wav(file)
	case begins("fLaC"):
		d = flac(file)
	case begins("OggS"):
		d = ogg(file)
	case begins("\x1A\x45\xDF\xA3"):
		d = webm(file)
	case len(file) >= 8 && string(file[4:8]) == "ftyp":
		d = mp4(file)
	default:
		d = frames(file)
	}
	if d <= 0 || d >= longest {
		return 0, false
	}
	return d, true
}

// longest is longer than any recording.
const longest = 1000 * time.Hour

// at converts units of a clock to a time, rounded up.
func at(units, perSecond uint64) time.Duration {
	if perSecond == 0 {
		return 0
	}
	hi, lo := bits.Mul64(units, uint64(time.Second))
	lo, carry := bits.Add64(lo, perSecond-1, 0)
	if hi += carry; hi >= perSecond {
		return longest
	}
	quotient, _ := bits.Div64(hi, lo, perSecond)
	return time.Duration(min(quotient, uint64(longest)))
}

// wav reads RIFF. All bytes after the beginning of the samples count as samples, because programs that write streams do not state the
// number.
func wav(b []byte) time.Duration {
	if len(b) < 12 || string(b[8:12]) != "WAVE" {
		return 0
	}
	var perSecond uint64
	for b = b[12:]; len(b) >= 8; {
		name, size := string(b[:4]), int64(binary.LittleEndian.Uint32(b[4:]))
		if b = b[8:]; name == "data" {
			return at(uint64(len(b)), perSecond)
		}
		if size += size & 1; size > int64(len(b)) {
			return 0
		}
		if name == "fmt " {
			if perSecond > 0 { // some decoders take the first format, others the last
				return 0
			}
			if perSecond = pcm(b[:size]); perSecond == 0 {
				return 0
			}
		}
		b = b[size:]
	}
	return 0
}

// pcm returns how many bytes a second a WAV has whose samples have a fixed size, and 0 for all others.
// https://learn.microsoft.com/en-us/windows/win32/api/mmreg/ns-mmreg-waveformatextensible
func pcm(format []byte) uint64 {
	if len(format) < 16 {
		return 0
	}
	field := func(i int) uint64 { return uint64(binary.LittleEndian.Uint16(format[i:])) }
	tag, channels, perSecond, align, width := field(0), field(2), uint64(binary.LittleEndian.Uint32(format[4:])), field(12), field(14)
	if tag == 0xFFFE {
		if len(format) < 40 || field(16) < 22 || (field(18)+7)/8*8 != width || string(format[26:40]) != subformat {
			return 0
		}
		tag = field(24)
	}
	switch tag {
	case 1: // whole numbers
		if width != 8 && width != 16 && width != 24 && width != 32 {
			return 0
		}
	case 3: // floating point
		if width != 32 && width != 64 {
			return 0
		}
	case 6, 7: // A-law and µ-law, whose samples have one byte, whatever is stated
		width = 8
	default:
		return 0
	}
	if align != channels*width/8 { // some decoders go by the one, others by the other
		return 0
	}
	return align * perSecond
}

// subformat is what follows the tag in the GUID of a format.
const subformat = "\x00\x00\x00\x00\x10\x00\x80\x00\x00\xAA\x00\x38\x9B\x71"
