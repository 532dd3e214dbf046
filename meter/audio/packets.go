package audio

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"time"
)

// packets counts the samples to which packets of Opus or Vorbis decode.
type packets struct {
	perSecond uint64
	samples   uint64
	blocks    [2]uint64 // the sizes of Vorbis' short and long blocks
}

// headed returns the counter of a stream by its first packet. Its perSecond is 0 for other codecs.
func headed(head []byte) (p packets) {
	switch {
	case bytes.HasPrefix(head, []byte("OpusHead")):
		p.perSecond = 48000
	case bytes.HasPrefix(head, []byte("\x01vorbis")) && len(head) >= 29:
		p.perSecond = uint64(binary.LittleEndian.Uint32(head[12:]))
		p.blocks = [2]uint64{1 << (head[28] & 15), 1 << (head[28] >> 4)}
	}
	return p
}

// add counts a packet, of which the first bytes are enough. Packets of Opus begin with their length
// (https://www.rfc-editor.org/rfc/rfc6716#section-3.1). Those of Vorbis have their mode there, of which encoders make two: that of short blocks,
// and that of long ones. Each block overlaps its neighbours by half. https://xiph.org/vorbis/doc/Vorbis_I_spec.html#x1-720004.3
func (p *packets) add(packet []byte) {
	switch {
	case len(packet) == 0, bytes.HasPrefix(packet, []byte("Opus")): // nothing, or a header
	case p.blocks[1] > 0:
		if packet[0]&1 == 0 { // otherwise it is a header
			p.samples += p.blocks[packet[0]>>1&1] / 2
		}
	default:
		config, each := packet[0]>>3, uint64(0)
		switch {
		case config < 12:
			each = [4]uint64{480, 960, 1920, 2880}[config&3]
		case config < 16:
			each = 480 << (config & 1)
		default:
			each = 120 << (config & 3)
		}
		switch packet[0] & 3 {
		case 0:
		case 3:
			each *= uint64(packet[min(1, len(packet)-1)] & 63)
		default:
			each *= 2
		}
		p.samples += each
	}
}

func (p *packets) length() time.Duration { return at(p.samples, p.perSecond) }

// ogg reads the pages of one stream. https://www.rfc-editor.org/rfc/rfc3533
func ogg(b []byte) time.Duration {
	capture := []byte("OggS")
	var stream packets
	var serial uint32
	pages, all, open := 0, bytes.Count(b, capture), false
	for {
		next := bytes.Index(b, capture)
		if next < 0 {
			break
		}
		pages++
		if b = b[next:]; len(b) < 27 || len(b) < 27+int(b[26]) {
			break
		}
		laces, page := b[27:27+int(b[26])], b[27+int(b[26]):]
		if pages == 1 {
			serial = binary.LittleEndian.Uint32(b[14:])
			stream = headed(page)
		}
		goesOn, begins := b[5]&1 != 0, b[5]&2 != 0
		if begins != (pages == 1) || binary.LittleEndian.Uint32(b[14:]) != serial || goesOn != open { // decoders play several streams, or lost packets, in different ways
			return 0
		}
		for _, lace := range laces {
			if !open {
				stream.add(page)
			}
			open = lace == 255
			page = page[min(int(lace), len(page)):]
		}
		b = page
	}
	if pages != all { // there are pages in pages, which a decoder finds that checks sums
		return 0
	}
	return stream.length()
}

// The elements of Matroska that are read. https://www.matroska.org/technical/elements.html
const (
	segment, cluster, blockGroup, simpleBlock, block = 0x18538067, 0x1F43B675, 0xA0, 0xA3, 0xA1
	tracks, trackEntry                               = 0x1654AE6B, 0xAE
	trackNumber, trackType, codecID, codecPrivate    = 0xD7, 0x83, 0x86, 0x63A2
	contentEncodings                                 = 0x6D80
)

// webm reads the blocks of the one track of sound.
func webm(b []byte) time.Duration {
	var entries []map[uint64][]byte
	var sound map[uint64][]byte
	var stream packets
	clusters, all := 0, bytes.Count(b, binary.BigEndian.AppendUint32(nil, cluster))
	for len(b) > 0 {
		id, n := vint(b, false)
		size, m := vint(b[n:], true)
		if n == 0 || m == 0 {
			if len(b) > 12 { // it is not just cut
				return 0
			}
			break
		}
		b = b[n+m:]
		switch id { // the content of these follows
		case cluster:
			clusters++
			continue
		case trackEntry:
			entries = append(entries, map[uint64][]byte{})
			if sound != nil {
				return 0
			}
			continue
		case segment, tracks, blockGroup:
			continue
		}
		body := b[:min(size, uint64(len(b)))]
		b = b[len(body):]
		switch id {
		case trackNumber, trackType, codecID, codecPrivate, contentEncodings:
			if len(entries) == 0 {
				continue
			}
			entry := entries[len(entries)-1]
			if _, twice := entry[id]; twice {
				return 0
			}
			entry[id] = body
		case simpleBlock, block:
			if sound == nil {
				if sound, stream = soundOf(entries); sound == nil {
					return 0
				}
			}
			if !stream.addBlock(body, number(sound[trackNumber])) {
				return 0
			}
		}
	}
	if clusters != all { // a decoder that meets an error goes on at the next cluster, wherever that is
		return 0
	}
	return stream.length()
}

// addBlock counts the packet in a block, if that is of the track. It returns false if there are several packets in it.
func (p *packets) addBlock(block []byte, of uint64) bool {
	track, n := vint(block, true)
	if n == 0 || len(block) < n+3 || track != of {
		return true
	}
	if block[n+2]&6 != 0 {
		return false
	}
	p.add(block[n+3:])
	return true
}

// soundOf returns the entry of the one track that has sound, and a counter of its packets; nil if there is no such track.
func soundOf(entries []map[uint64][]byte) (sound map[uint64][]byte, stream packets) {
	for _, entry := range entries {
		if kind := number(entry[trackType]); kind == 1 || kind == 17 { // pictures, subtitles
			continue
		}
		if sound != nil {
			return nil, stream
		}
		sound = entry
	}
	if _, encoded := sound[contentEncodings]; encoded {
		return nil, stream
	}
	switch string(bytes.TrimRight(sound[codecID], "\x00")) {
	case "A_OPUS":
		stream = headed([]byte("OpusHead"))
	case "A_VORBIS": // three packets, behind the lengths of the first two
		head := sound[codecPrivate]
		for skipped := 0; skipped < 3 && len(head) > 0; head = head[1:] {
			if head[0] < 255 {
				skipped++
			}
		}
		stream = headed(head)
	}
	if stream.perSecond == 0 {
		return nil, stream
	}
	return sound, stream
}

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
