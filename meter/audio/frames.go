package audio

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"time"
)

// frames reads MPEG audio, layers 1 to 3, and AAC in ADTS, frame by frame. The file must begin with a frame, behind tags. All frames must be
// of one kind: decoders pass over those of another, which may have others in them.
func frames(b []byte) (length time.Duration) {
	for len(b) >= 10 && string(b[:3]) == "ID3" && b[3] < 0xFF && b[4] < 0xFF && (b[6]|b[7]|b[8]|b[9])&0x80 == 0 {
		tag := 10 + int(b[6])<<21 + int(b[7])<<14 + int(b[8])<<7 + int(b[9]) + int(b[5]>>4&1)*10
		b = b[min(tag, len(b)):]
	}
	b = bytes.TrimLeft(b, "\x00")
	covered := 0
	for i := 0; i+7 <= len(b); {
		size, d := frame(b[i:])
		if i == 0 && size == 0 {
			return 0
		}
		length += d
		if size > 0 && b[i+1]&0xFE == b[1]&0xFE && b[i+2]&0x0C == b[2]&0x0C { // of the same version, layer and rate
			covered += min(size, len(b)-i)
			i += size
			continue
		}
		next := bytes.IndexByte(b[i+1:], 0xFF)
		if next < 0 {
			break
		}
		i += 1 + next
	}
	if covered < len(b)/10*9 { // this is another format, in which some bytes look like frames
		return 0
	}
	return length
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
		blocks := max(int(b[6]&3)+1, (size+maxAAC-1)/maxAAC)
		return size, at(1024*uint64(blocks), uint64(samples))
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

// flac reads frame by frame, and finds each by the sum in its header. https://www.rfc-editor.org/rfc/rfc9639#section-9.1
func flac(b []byte) (length time.Duration) {
	if len(b) < 26 || b[4]&0x7F != 0 {
		return 0
	}
	packed := binary.BigEndian.Uint64(b[18:])
	perSecond := packed >> 44
	stated := at(packed&(1<<36-1), perSecond)
	b = b[4:]
	for last := false; !last; {
		if len(b) < 4 {
			return 0
		}
		last = b[0]&0x80 != 0
		b = b[min(4+int(b[1])<<16+int(b[2])<<8+int(b[3]), len(b)):]
	}
	for {
		next := bytes.IndexByte(b, 0xFF)
		if next < 0 {
			break
		}
		b = b[next:]
		length += flacFrame(b, perSecond)
		b = b[1:]
	}
	if stated > 0 && length <= stated+stated/50+time.Second { // a few bytes of sound may look like a header
		return stated
	}
	if stated > 0 {
		return 0
	}
	return length
}

var flacRates = [12]uint64{0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000}

// flacFrame returns the length of the frame whose header is at the beginning of b, and 0 if there is none.
func flacFrame(b []byte, perSecond uint64) time.Duration {
	if len(b) < 17 || b[1]&0xFE != 0xF8 || b[3]>>4 > 10 || b[3]&1 != 0 {
		return 0
	}
	i := 4 + max(1, bits.LeadingZeros8(^b[4])) // behind its number, which is written as a character in UTF-8
	extra := func(bytes int) (n uint64) {
		for _, c := range b[i : i+bytes] {
			n = n<<8 | uint64(c)
		}
		i += bytes
		return n
	}
	var samples uint64
	switch code := b[2] >> 4; {
	case code == 1:
		samples = 192
	case code == 6:
		samples = extra(1) + 1
	case code == 7:
		samples = extra(2) + 1
	case code >= 8:
		samples = 256 << (code - 8)
	case code > 0:
		samples = 576 << (code - 2)
	}
	switch code := b[2] & 15; code {
	case 0:
	case 12:
		perSecond = extra(1) * 1000
	case 13:
		perSecond = extra(2)
	case 14:
		perSecond = extra(2) * 10
	case 15:
		return 0
	default:
		perSecond = flacRates[code]
	}
	var sum byte
	for _, c := range b[:i] {
		sum ^= c
		for range 8 {
			sum = sum<<1 ^ sum>>7*7
		}
	}
	if sum != b[i] {
		return 0
	}
	return at(samples, perSecond)
}
