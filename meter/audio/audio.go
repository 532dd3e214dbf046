// Package audio computes the length of a recording from its container: WAV, MP3 and AAC, FLAC, Ogg, MP4, WebM. It decodes no sound.
// [Length] is all that it exports.
//
// The length is what a decoder plays, and not what a header claims: it is computed from the frames of MP3 and AAC, the samples of WAV, the
// times of the blocks of WebM, and the table of samples of MP4. FLAC and Ogg state a number of samples, which must fit the size of the
// file.
package audio

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"time"
)

// Length returns how long a recording is, or false if that is unknown.
func Length(file []byte) (time.Duration, bool) {
	for _, read := range []func([]byte) (time.Duration, bool){wav, flac, ogg, mp4, webm, frames} {
		if d, ok := read(file); ok && d > 0 && d < longest {
			return d, true
		}
	}
	return 0, false
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

// rate is the highest number of bytes a second of a compressed recording. A file with more states a length that is too short.
const rate = 200_000

func plausible(d time.Duration, size int) (time.Duration, bool) {
	return d, at(uint64(size), rate) <= d
}

// wav reads RIFF. All bytes after the beginning of the samples count as samples, because programs that write streams do not state the
// number.
func wav(b []byte) (time.Duration, bool) {
	if len(b) < 12 || string(b[:4]) != "RIFF" && string(b[:4]) != "RF64" || string(b[8:12]) != "WAVE" {
		return 0, false
	}
	var perSecond uint64
	for b = b[12:]; len(b) >= 8; {
		name, size := string(b[:4]), int64(binary.LittleEndian.Uint32(b[4:]))
		if b = b[8:]; name == "data" {
			return at(uint64(len(b)), perSecond), perSecond > 0
		}
		if name == "fmt " && len(b) >= 16 {
			switch binary.LittleEndian.Uint16(b) {
			case 1, 3, 6, 7, 0xFFFE: // samples of a fixed size
				channels, samples, width := binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint16(b[14:])
				perSecond = uint64(channels) * uint64(samples) * uint64(width) / 8
			}
		}
		if size += size & 1; size > int64(len(b)) {
			return 0, false
		}
		b = b[size:]
	}
	return 0, false
}

// flac reads the first block of metadata. https://www.rfc-editor.org/rfc/rfc9639#section-8.2
func flac(b []byte) (time.Duration, bool) {
	if len(b) < 26 || string(b[:4]) != "fLaC" || b[4]&0x7f != 0 {
		return 0, false
	}
	packed := binary.BigEndian.Uint64(b[18:])
	samples, perSecond := packed&(1<<36-1), packed>>44
	raw := samples * (packed>>41&7 + 1) * (packed>>36&31 + 1) / 8
	if samples == 0 || uint64(len(b)) > raw+raw/8+pictures {
		return 0, false
	}
	return at(samples, perSecond), true
}

// pictures is how many bytes a file may have besides its samples.
const pictures = 1 << 20

// ogg reads pages. The last page states how many samples there are. https://www.rfc-editor.org/rfc/rfc3533,
// https://www.rfc-editor.org/rfc/rfc7845, https://xiph.org/vorbis/doc/Vorbis_I_spec.html
func ogg(b []byte) (time.Duration, bool) {
	if !bytes.HasPrefix(b, []byte("OggS")) {
		return 0, false
	}
	size := len(b)
	clocks := map[uint32]uint64{}
	var longestSoFar time.Duration
	for len(b) >= 27 {
		if !bytes.HasPrefix(b, []byte("OggS")) {
			next := bytes.Index(b[1:], []byte("OggS"))
			if next < 0 {
				break
			}
			b = b[1+next:]
			continue
		}
		granule, serial, segments := binary.LittleEndian.Uint64(b[6:]), binary.LittleEndian.Uint32(b[14:]), int(b[26])
		if len(b) < 27+segments {
			break
		}
		body := 0
		for _, lace := range b[27 : 27+segments] {
			body += int(lace)
		}
		page := b[27+segments:]
		page = page[:min(body, len(page))]
		switch {
		case bytes.HasPrefix(page, []byte("OpusHead")):
			clocks[serial] = 48000
		case bytes.HasPrefix(page, []byte("\x01vorbis")) && len(page) >= 16:
			clocks[serial] = uint64(binary.LittleEndian.Uint32(page[12:]))
		case bytes.HasPrefix(page, []byte("Speex   ")) && len(page) >= 40:
			clocks[serial] = uint64(binary.LittleEndian.Uint32(page[36:]))
		case int64(granule) > 0:
			longestSoFar = max(longestSoFar, at(granule, clocks[serial]))
		}
		b = b[27+segments+len(page):]
	}
	return plausible(longestSoFar, size)
}

// mp4 reads the boxes of ISO 14496-12.
func mp4(b []byte) (time.Duration, bool) {
	if len(b) < 12 || string(b[4:8]) != "ftyp" {
		return 0, false
	}
	size, video, whole := len(b), false, true
	var length time.Duration
	var walk func(b []byte, clock *uint64)
	walk = func(b []byte, clock *uint64) {
		for len(b) >= 8 {
			n, head := uint64(binary.BigEndian.Uint32(b)), uint64(8)
			switch {
			case n == 1 && len(b) >= 16:
				n, head = binary.BigEndian.Uint64(b[8:]), 16
			case n == 0:
				n = uint64(len(b))
			}
			if n < head || n > uint64(len(b)) {
				return
			}
			box := b[head:n]
			switch string(b[4:8]) {
			case "moov", "mdia", "minf", "stbl":
				walk(box, clock)
			case "trak":
				walk(box, new(uint64))
			case "moof": // the samples of fragments are in none of the tables
				whole = false
			case "mvhd", "mdhd":
				perSecond, units := header(box)
				*clock = perSecond
				length = max(length, at(units, perSecond))
			case "hdlr":
				video = video || len(box) >= 12 && string(box[8:12]) == "vide"
			case "stts":
				length = max(length, at(table(box), *clock))
			}
			b = b[n:]
		}
	}
	walk(b, new(uint64))
	if !whole {
		return 0, false
	}
	if video {
		return length, length > 0
	}
	return plausible(length, size)
}

// header reads the clock and the length of a movie or of a track.
func header(box []byte) (perSecond, units uint64) {
	switch {
	case len(box) >= 32 && box[0] == 1:
		return uint64(binary.BigEndian.Uint32(box[20:])), binary.BigEndian.Uint64(box[24:])
	case len(box) >= 20 && box[0] == 0:
		if units = uint64(binary.BigEndian.Uint32(box[16:])); units == 1<<32-1 {
			units = 0 // unknown
		}
		return uint64(binary.BigEndian.Uint32(box[12:])), units
	}
	return 0, 0
}

// table adds up the lengths of the samples of a track.
func table(box []byte) (units uint64) {
	for i := 8; i+8 <= len(box); i += 8 {
		units += uint64(binary.BigEndian.Uint32(box[i:])) * uint64(binary.BigEndian.Uint32(box[i+4:]))
		if units > 1<<62 {
			return units
		}
	}
	return units
}

// webm reads the times of blocks. https://www.matroska.org/technical/elements.html
func webm(b []byte) (time.Duration, bool) {
	if !bytes.HasPrefix(b, []byte{0x1A, 0x45, 0xDF, 0xA3}) {
		return 0, false
	}
	var scale, cluster, last uint64 = 1_000_000, 0, 0
	for len(b) > 0 {
		id, n := vint(b, false)
		if n == 0 {
			break
		}
		size, m := vint(b[n:], true)
		if m == 0 {
			break
		}
		b = b[n+m:]
		switch id {
		case 0x18538067, 0x1F43B675, 0x1549A966, 0xA0: // a segment, a cluster, the info, a group of blocks: their content follows
			continue
		}
		body := b[:min(size, uint64(len(b)))]
		switch {
		case id == 0x2AD7B1:
			scale = number(body)
		case id == 0xE7:
			cluster = number(body)
		case (id == 0xA3 || id == 0xA1) && len(body) >= 4:
			_, track := vint(body, true)
			if len(body) >= track+2 {
				last = max(last, cluster+uint64(max(0, int16(binary.BigEndian.Uint16(body[track:])))))
			}
		}
		b = b[len(body):]
	}
	hi, nanos := bits.Mul64(last, scale)
	if hi > 0 || nanos > uint64(longest) {
		return 0, false
	}
	return time.Duration(nanos) + lastBlock, last > 0
}

// lastBlock is the length that is assumed for the last block of a WebM, which states only its beginning.
const lastBlock = 120 * time.Millisecond

// vint reads a number whose length is in its first bits. A value does not include these bits. n is 0 if there is no such number.
func vint(b []byte, value bool) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	if n = bits.LeadingZeros8(b[0]) + 1; n > 8 || n > len(b) {
		return 0, 0
	}
	for _, c := range b[:n] {
		v = v<<8 | uint64(c)
	}
	if value {
		v &^= 1 << (7 * n)
	}
	return v, n
}

func number(b []byte) (v uint64) {
	for _, c := range b[:min(8, len(b))] {
		v = v<<8 | uint64(c)
	}
	return v
}

// frames reads MPEG audio, layers 1 to 3, and AAC in ADTS, frame by frame.
func frames(b []byte) (time.Duration, bool) {
	if len(b) >= 10 && string(b[:3]) == "ID3" {
		tag := int(b[6]&0x7f)<<21 | int(b[7]&0x7f)<<14 | int(b[8]&0x7f)<<7 | int(b[9]&0x7f)
		b = b[min(10+tag, len(b)):]
	}
	var length time.Duration
	found, covered := 0, 0
	for i := 0; i+7 <= len(b); {
		size, d := frame(b[i:])
		if size == 0 || found == 0 && (i+size+2 > len(b) || b[i+size] != 0xFF) && i+size != len(b) { // it only looks like the first frame
			next := bytes.IndexByte(b[i+1:], 0xFF)
			if next < 0 {
				break
			}
			i += 1 + next
			continue
		}
		length += d
		found++
		covered += min(size, len(b)-i)
		i += size
	}
	return length, found > 0 && covered >= len(b)/10*9 // otherwise this is another format, in which some bytes look like frames
}

var (
	bitrates = [2][3][16]int{ // in kbit/s, of MPEG 1 and 2, by layer
		{{0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448}, {0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384},
			{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320}},
		{{0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256}, {0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
			{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160}},
	}
	sampleRates = [4]int{44100, 48000, 32000, 0}
	adtsRates   = [16]int{96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}
)

// frame returns the number of bytes of the frame at the beginning of b, and its length. The number is 0 if there is no frame.
func frame(b []byte) (size int, d time.Duration) {
	if b[0] != 0xFF || b[1]&0xE0 != 0xE0 {
		return 0, 0
	}
	if b[1]&0xF6 == 0xF0 { // ADTS
		samples := adtsRates[b[2]>>2&15]
		size = int(b[3]&3)<<11 | int(b[4])<<3 | int(b[5])>>5
		if samples == 0 || size < 7 {
			return 0, 0
		}
		return size, at(1024*uint64(b[6]&3+1), uint64(samples))
	}
	version, layer := int(b[1]>>3&3), 4-int(b[1]>>1&3) // version: 3 is MPEG 1, 2 MPEG 2, 0 MPEG 2.5
	if version == 1 || layer == 4 {
		return 0, 0
	}
	old, samples := 0, sampleRates[b[2]>>2&3]
	if version != 3 {
		old, samples = 1, samples>>1
	}
	if version == 0 {
		samples >>= 1
	}
	kbit, padding := bitrates[old][layer-1][b[2]>>4], int(b[2]>>1&1)
	if kbit == 0 || samples == 0 {
		return 0, 0
	}
	per := [3]int{384, 1152, 1152 >> old}[layer-1]
	if layer == 1 {
		size = (12*kbit*1000/samples + padding) * 4
	} else {
		size = per/8*kbit*1000/samples + padding
	}
	return size, at(uint64(per), uint64(samples))
}
