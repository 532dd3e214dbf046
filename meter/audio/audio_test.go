package audio

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// The recordings of these tests are made here: containers according to their specifications, with silence or nothing in them.

func le16(n uint16) []byte { return binary.LittleEndian.AppendUint16(nil, n) }
func le32(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func cat(parts ...any) (b []byte) {
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			b = append(b, part...)
		case []byte:
			b = append(b, part...)
		}
	}
	return b
}

// wavFile is a WAV of 16 bits at 8000 Hz, whose header states a number of bytes of samples.
func wavFile(channels uint16, stated uint32, samples []byte) []byte {
	format := cat(le16(1), le16(channels), le32(8000), le32(1), le16(2*channels), le16(16)) // the bytes a second are a lie
	return cat("RIFF", le32(0), "WAVE", "LIST", le32(3), "abc\x00", "fmt ", le32(uint32(len(format))), format, "data", le32(stated), samples)
}

func flacFile(samples uint64, size int) []byte {
	packed := binary.BigEndian.AppendUint64(nil, 16000<<44|0<<41|15<<36|samples)
	return cat("fLaC", []byte{0x80, 0, 0, 34}, make([]byte, 10), packed, make([]byte, size))
}

func oggPage(serial uint32, granule uint64, body []byte) []byte {
	return cat("OggS", []byte{0, 0}, binary.LittleEndian.AppendUint64(nil, granule), le32(serial), le32(0), le32(0), []byte{1, byte(len(body))}, body)
}

func box(name string, parts ...any) []byte {
	body := cat(parts...)
	return cat(be32(uint32(8+len(body))), name, body)
}

func mp4File(movie, media, samples, delta uint32, kind string, extra ...any) []byte {
	return cat(box("ftyp", "M4A ", be32(0)), box("moov", box("mvhd", be32(0), be32(0), be32(0), be32(1000), be32(movie)),
		box("trak", box("mdia", box("mdhd", be32(0), be32(0), be32(0), be32(8000), be32(media)), box("hdlr", be32(0), be32(0), kind),
			box("minf", box("stbl", box("stts", be32(0), be32(1), be32(samples), be32(delta))))))), cat(extra...))
}

func element(id []byte, body []byte) []byte {
	return cat(id, []byte{0x10 | byte(len(body)>>24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body)
}

// webmFile is a WebM as browsers record it: without a length, and with a cluster of unknown size.
func webmFile(cluster uint16, block int16) []byte {
	return cat(element([]byte{0x1A, 0x45, 0xDF, 0xA3}, []byte("webm")), []byte{0x18, 0x53, 0x80, 0x67, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
		element([]byte{0x15, 0x49, 0xA9, 0x66}, element([]byte{0x2A, 0xD7, 0xB1}, []byte{0x0F, 0x42, 0x40})),
		[]byte{0x1F, 0x43, 0xB6, 0x75, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, element([]byte{0xE7}, binary.BigEndian.AppendUint16(nil, cluster)),
		element([]byte{0xA3}, cat([]byte{0x81}, binary.BigEndian.AppendUint16(nil, uint16(block)), []byte{0x80, 1, 2, 3})))
}

// mp3Frame is a frame of MPEG 1, layer 3, of 128 kbit/s at 48000 Hz: 24 ms in 384 bytes.
var mp3Frame = append([]byte{0xFF, 0xFB, 0x94, 0}, make([]byte, 380)...)

// aacFrame is a frame of 1024 samples at 16000 Hz: 64 ms in 100 bytes.
var aacFrame = append([]byte{0xFF, 0xF1, 8<<2 | 1<<6, 0x40, 100 >> 3, 100 << 5 & 0xFF, 0}, make([]byte, 93)...)

func TestLength(t *testing.T) {
	minute := time.Minute
	for _, test := range []struct {
		name string
		file []byte
		want time.Duration // 0: it can't be told
	}{
		{"wav", wavFile(1, 16000, make([]byte, 16000)), time.Second},
		{"wav, stereo", wavFile(2, 64000, make([]byte, 64000)), 2 * time.Second},
		{"wav that is streamed", wavFile(1, 0xFFFFFFFF, make([]byte, 16000)), time.Second},
		{"wav that claims less than it has", wavFile(1, 2, make([]byte, 16000)), time.Second},
		{"wav without samples", wavFile(1, 0, nil), 0},
		{"wav of another codec", bytes.Replace(wavFile(1, 9, make([]byte, 9)), []byte{16, 0, 0, 0, 1, 0}, []byte{16, 0, 0, 0, 2, 0}, 1), 0},
		{"mp3", bytes.Repeat(mp3Frame, 2500), minute},
		{"mp3 with tags", cat("ID3\x04\x00\x00\x00\x00\x01\x00", make([]byte, 128), bytes.Repeat(mp3Frame, 2500), "TAG", make([]byte, 125)), minute},
		{"mp3 whose tag looks like a frame", cat([]byte{0xFF, 0xFB, 0x94, 0, 1, 2}, bytes.Repeat(mp3Frame, 25)), 600 * time.Millisecond},
		{"aac", bytes.Repeat(aacFrame, 1000), 64 * time.Second},
		{"a frame in something else", cat(make([]byte, 5000), mp3Frame, mp3Frame), 0},
		{"flac", flacFile(16000*60, 1<<20), minute},
		{"flac of unknown length", flacFile(0, 1<<20), 0},
		{"flac that claims less than it has", flacFile(16000, 4<<20), 0},
		{"opus", cat(oggPage(1, 0, []byte("OpusHead")), oggPage(1, 48000, nil), oggPage(1, 48000*60, []byte("x"))), minute},
		{"vorbis", cat(oggPage(1, 0, cat("\x01vorbis", le32(0), "\x01", le32(16000))), oggPage(1, 16000*60, nil)), minute},
		{"opus that claims less than it has", cat(oggPage(1, 0, []byte("OpusHead")), oggPage(1, 48000, nil), make([]byte, 4<<20)), 0},
		{"opus, cut", cat(oggPage(1, 0, []byte("OpusHead")), oggPage(1, 48000, nil))[:40], 0},
		{"m4a", mp4File(60_000, 480_000, 480_000, 1, "soun"), minute},
		{"m4a that claims less in its movie", mp4File(1, 1, 480, 1000, "soun"), minute},
		{"m4a that claims less in its table", mp4File(60_000, 1, 1, 1, "soun"), minute},
		{"m4a that claims less than it has", mp4File(1000, 8000, 8000, 1, "soun", make([]byte, 4<<20)), 0},
		{"mp4 with a picture", cat(mp4File(1000, 8000, 8000, 1, "vide"), make([]byte, 4<<20)), time.Second},
		{"mp4 in fragments", mp4File(1, 0, 0, 0, "soun", box("moof")), 0},
		{"webm", webmFile(59_000, 880), minute},
		{"webm without blocks", webmFile(0, 0), 0},
		{"nothing", nil, 0},
		{"text", []byte("hello there, this is no recording at all"), 0},
	} {
		got, ok := Length(test.file)
		if ok != (test.want > 0) || got != test.want {
			t.Errorf("%s: %v %v, want %v", test.name, got, ok, test.want)
		}
	}
}

func FuzzLength(f *testing.F) {
	for _, file := range [][]byte{wavFile(1, 9, make([]byte, 99)), bytes.Repeat(mp3Frame, 3), aacFrame, flacFile(9, 9), cat(oggPage(1, 0, []byte("OpusHead")), oggPage(1, 48000, nil)),
		mp4File(60_000, 480_000, 480_000, 1, "soun"), webmFile(59_000, 880)} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		before := slices.Clone(file)
		if d, ok := Length(file); ok && (d <= 0 || d >= longest) {
			t.Fatalf("%v", d)
		}
		if !bytes.Equal(before, file) {
			t.Fatal("it was changed")
		}
	})
}
