package audio

import (
	"bytes"
	"encoding/binary"
	"time"
)

// movie is what the boxes of an MP4 say: those of each track, by their names.
type movie struct{ tracks []map[string][]byte }

// mp4 reads the boxes of ISO 14496-12. The frames of the one track of sound are counted. Their times must agree: there are decoders that read
// sound by its times, and not frame by frame.
func mp4(b []byte) time.Duration {
	var m movie
	tables := 0
	for rest := b; len(rest) >= 8; {
		name, box, after, ok := cutBox(rest)
		if !ok {
			return 0
		}
		if name != "mdat" {
			if bytes.Contains(box, []byte("tfhd")) { // the frames of fragments are in none of the tables
				return 0
			}
			tables += bytes.Count(box, []byte("stsz")) + bytes.Count(box, []byte("stz2"))
		}
		if name == "moov" && !m.read(box, nil) {
			return 0
		}
		rest = after
	}
	var sound map[string][]byte
	for _, track := range m.tracks {
		if track["stsz"] != nil {
			tables--
		}
		if handler := track["hdlr"]; len(handler) >= 12 && silent[string(handler[8:12])] {
			continue
		}
		if sound != nil {
			return 0
		}
		sound = track
	}
	if sound == nil || tables != 0 || plays(sound["elst"]) > 1 { // there are tracks where none is expected, or parts of one are played again
		return 0
	}
	length, times := played(sound["stsd"], sound["stsz"]), at(table(sound["stts"]), clock(sound["mdhd"]))
	if length == 0 || times < length/10*9 {
		return 0
	}
	return max(length, times)
}

// silent are the tracks that have no sound, by their handlers. Decoders find sound in those of unknown handlers.
var silent = map[string]bool{"vide": true, "text": true, "sbtl": true, "subt": true, "tmcd": true, "meta": true, "hint": true, "clcp": true}

// cutBox cuts the first box. A file may end within the box of its sound.
func cutBox(b []byte) (name string, box, after []byte, ok bool) {
	n, head := uint64(binary.BigEndian.Uint32(b)), uint64(8)
	name = string(b[4:8])
	switch {
	case n == 1 && len(b) >= 16:
		n, head = binary.BigEndian.Uint64(b[8:]), 16
	case n == 0:
		n = uint64(len(b))
	}
	if name == "mdat" {
		n = min(n, uint64(len(b)))
	}
	if n < head || n > uint64(len(b)) {
		return "", nil, nil, false
	}
	return name, b[head:n], b[n:], true
}

// read reads the boxes of a movie, or of a track.
func (m *movie) read(b []byte, track map[string][]byte) bool {
	for len(b) >= 8 {
		name, box, after, ok := cutBox(b)
		if !ok {
			return false
		}
		switch name {
		case "trak":
			next := map[string][]byte{}
			m.tracks = append(m.tracks, next)
			ok = m.read(box, next)
		case "mdia", "minf", "stbl", "edts":
			ok = m.read(box, track)
		case "hdlr", "mdhd", "stsd", "stsz", "stts", "elst":
			if name == "hdlr" && len(box) >= 12 && (string(box[8:12]) == "alis" || string(box[8:12]) == "url ") { // QuickTime's, of where the data is
				break
			}
			if track == nil || track[name] != nil { // some decoders take the first, others the last
				return false
			}
			track[name] = box
		}
		if !ok {
			return false
		}
		b = after
	}
	return true
}

// clock returns how many units of time a second of a track has.
func clock(mdhd []byte) uint64 {
	switch {
	case len(mdhd) >= 24 && mdhd[0] == 1:
		return uint64(binary.BigEndian.Uint32(mdhd[20:]))
	case len(mdhd) >= 16 && mdhd[0] == 0:
		return uint64(binary.BigEndian.Uint32(mdhd[12:]))
	}
	return 0
}

// table adds up the times of the frames of a track.
func table(stts []byte) (units uint64) {
	for i := 8; i+8 <= len(stts); i += 8 {
		units += uint64(binary.BigEndian.Uint32(stts[i:])) * uint64(binary.BigEndian.Uint32(stts[i+4:]))
		if units > 1<<62 {
			return units
		}
	}
	return units
}

// plays returns how many parts of a track are played. An edit of no part of it delays the others.
func plays(elst []byte) (parts int) {
	width, from := 12, 4
	if len(elst) > 0 && elst[0] == 1 {
		width, from = 20, 8
	}
	for i := 8; i+width <= len(elst); i += width {
		if elst[i+from]&0x80 == 0 {
			parts++
		}
	}
	return parts
}

// played returns how long the frames of a track are: of AAC, or of Apple's lossless codec. 0 stands for all others.
func played(stsd, stsz []byte) time.Duration {
	if len(stsd) < 44 || len(stsz) < 12 || binary.BigEndian.Uint32(stsd[4:]) != 1 {
		return 0
	}
	each, count := uint64(binary.BigEndian.Uint32(stsz[4:])), uint64(binary.BigEndian.Uint32(stsz[8:]))
	size := each * count
	if each == 0 {
		if uint64(len(stsz)-12) < 4*count {
			return 0
		}
		for i := range count {
			size += uint64(binary.BigEndian.Uint32(stsz[12+4*i:]))
		}
	}
	switch entry := stsd[16:]; string(stsd[12:16]) {
	case "mp4a":
		return at(max(count, (size+maxAAC-1)/maxAAC)*1024, aacRate(entry))
	case "alac":
		// https://github.com/macosforge/alac/blob/master/ALACMagicCookieDescription.txt
		if _, cookie, found := bytes.Cut(entry, []byte("alac")); found && len(cookie) >= 28 && bytes.Count(entry, []byte("alac")) == 1 {
			return at(count*uint64(binary.BigEndian.Uint32(cookie[4:])), uint64(binary.BigEndian.Uint32(cookie[24:])))
		}
	}
	return 0
}

// maxAAC is the most bytes of a frame of AAC: 6144 bits for each of two channels (ISO 14496-3). What has more is several frames, which decoders
// play one after the other.
const maxAAC = 1536

// aacRate returns the rate that the decoder of AAC is told, as it stands in the descriptor of an elementary stream (ISO 14496-1).
func aacRate(entry []byte) uint64 {
	_, b, found := bytes.Cut(entry, []byte("esds"))
	if !found || bytes.Contains(b, []byte("esds")) || len(b) < 4 {
		return 0
	}
	stream := descriptor(b[4:], 3)
	if len(stream) < 3 || stream[2]&0xE0 != 0 {
		return 0
	}
	config := descriptor(stream[3:], 4)
	if len(config) < 13 || config[0] != 0x40 {
		return 0
	}
	if b = descriptor(config[13:], 5); len(b) < 2 {
		return 0
	}
	switch b[0] >> 3 {
	case 1, 2, 3, 4, 5, 29: // of 1024 samples; the last two make twice as many at twice the rate
		return uint64(adtsRates[b[0]&7<<1|b[1]>>7])
	}
	return 0
}

// descriptor returns the content of a descriptor at the beginning of b.
func descriptor(b []byte, tag byte) []byte {
	if len(b) == 0 || b[0] != tag {
		return nil
	}
	size, i := 0, 1
	for ; i < len(b) && i <= 4; i++ {
		size = size<<7 | int(b[i]&0x7F)
		if b[i]&0x80 == 0 {
			break
		}
	}
	i = min(i+1, len(b))
	return b[i:min(i+size, len(b))]
}
