package audio

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
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

// wavFormat is the format of a WAV of 8000 Hz. Its bytes a second are a lie.
func wavFormat(tag, channels, align, width uint16, extra ...any) []byte {
	body := cat(le16(tag), le16(channels), le32(8000), le32(1), le16(align), le16(width), cat(extra...))
	return cat("fmt ", le32(uint32(len(body))), body)
}

// wavFile is a WAV whose header states a number of bytes of samples.
func wavFile(stated uint32, samples []byte, formats ...any) []byte {
	return cat("RIFF", le32(0), "WAVE", "LIST", le32(3), "abc\x00", cat(formats...), "data", le32(stated), samples)
}

// extensible is what follows the width in an extensible format.
func extensible(valid, tag uint16) []byte {
	return cat(le16(22), le16(valid), le32(3), le16(tag), subformat)
}

// flacFrame16k is a frame of 16,000 samples at a rate of its own, of 200 bytes.
func flacFrame16k(rate byte) []byte {
	head := []byte{0xFF, 0xF8, 7<<4 | rate, 0x08, 0, 0x3E, 0x7F}
	var sum byte
	for _, c := range head {
		sum ^= c
		for range 8 {
			sum = sum<<1 ^ sum>>7*7
		}
	}
	return cat(head, []byte{sum}, make([]byte, 192))
}

// flacFile is a FLAC with a picture, of frames of a second.
func flacFile(stated uint64, frames int) []byte {
	packed := binary.BigEndian.AppendUint64(nil, 16000<<44|0<<41|15<<36|stated)
	return cat("fLaC", []byte{0, 0, 0, 34}, make([]byte, 10), packed, make([]byte, 16), []byte{0x86, 1, 0, 0}, bytes.Repeat([]byte{0xFF}, 1<<16),
		bytes.Repeat(flacFrame16k(5), frames))
}

// oggPage is a page of packets of less than 255 bytes.
func oggPage(serial uint32, flags byte, packets ...string) []byte {
	page := cat("OggS", []byte{0, flags}, make([]byte, 8), le32(serial), le32(0), le32(0), []byte{byte(len(packets))})
	for _, p := range packets {
		page = append(page, byte(len(p)))
	}
	return cat(page, strings.Join(packets, ""))
}

// opusSecond is a second of Opus, in packets of 20 ms, in which there are one, two, or as many frames as are stated.
var opusSecond = slices.Concat(slices.Repeat([]string{"\xF8a"}, 20), slices.Repeat([]string{"\xF1a"}, 20), slices.Repeat([]string{"\xE3\x08a"}, 10))

func opusFile(seconds int) []byte {
	return cat(oggPage(1, 2, "OpusHead"), oggPage(1, 0, "OpusTags"), bytes.Repeat(oggPage(1, 0, opusSecond...), seconds))
}

// vorbisHead has blocks of 256 and 2048 samples at 16000 Hz.
var vorbisHead = string(cat("\x01vorbis", le32(0), "\x01", le32(16000), make([]byte, 12), []byte{11<<4 | 8, 1}))

// vorbisSecond is a second in 8 short blocks and about 15 long ones.
var vorbisSecond = slices.Concat(slices.Repeat([]string{"\x00a"}, 5), slices.Repeat([]string{"\x02a"}, 15))

func box(name string, parts ...any) []byte {
	body := cat(parts...)
	return cat(be32(uint32(8+len(body))), name, body)
}

// aacEntry says that sound is AAC of 16000 Hz.
func aacEntry() []byte {
	esds := cat(be32(0), []byte{3, 0x80, 0x80, 0x80, 22, 0, 1, 0, 4, 17, 0x40}, make([]byte, 12), []byte{5, 2, 2<<3 | 8>>1, 0x08})
	return box("mp4a", make([]byte, 28), box("esds", esds))
}

// mp4Track is a track of frames of 100 bytes, with the times of a clock.
func mp4Track(kind string, clock, frames, delta uint32, entry []byte, extra ...any) []byte {
	return box("trak", box("mdia", box("mdhd", be32(0), be32(0), be32(0), be32(clock), be32(1)), box("hdlr", be32(0), be32(0), kind),
		box("minf", box("stbl", box("stsd", be32(0), be32(1), entry), box("stts", be32(0), be32(1), be32(frames), be32(delta)),
			box("stsz", be32(0), be32(100), be32(frames))))), cat(extra...))
}

func mp4File(parts ...any) []byte {
	movie := box("mvhd", be32(0), be32(0), be32(0), be32(1000), be32(1))
	return cat(box("ftyp", "M4A ", be32(0)), box("mdat", "moov stsz"), box("moov", movie, cat(parts...)))
}

// aacTrack is a minute.
func aacTrack(extra ...any) []byte {
	return mp4Track("soun", 16000, 60*16000/1024+1, 1024, aacEntry(), extra...)
}

func edits(starts ...uint32) []byte {
	list := cat(be32(0), be32(uint32(len(starts))))
	for _, start := range starts {
		list = cat(list, be32(1000), be32(start), be32(1<<16))
	}
	return box("edts", box("elst", list))
}

func element(id uint32, parts ...any) []byte {
	body, head := cat(parts...), bytes.TrimLeft(be32(id), "\x00")
	return cat(head, []byte{0x10 | byte(len(body)>>24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body)
}

// webmFile is a WebM as browsers record it, with a picture: without a length, and with clusters of unknown size.
func webmFile(tracksOf []byte, blocks ...any) []byte {
	unknown := []byte{0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}
	return cat(element(0x1A45DFA3, "webm"), be32(segment), unknown, element(0x1549A966, element(0x2AD7B1, []byte{100})), // a clock that is far too fast
		element(tracks, element(trackEntry, element(trackNumber, "\x01"), element(trackType, "\x01"), element(codecID, "V_VP8")), tracksOf),
		be32(cluster), unknown, element(0xE7, "\x00"), webmBlock(1, 0, "\xFFpicture"), cat(blocks...))
}

func webmTrack(codec string, extra ...any) []byte {
	return element(trackEntry, element(trackNumber, "\x02"), element(trackType, "\x02"), element(codecID, codec), cat(extra...))
}

func webmBlock(track, flags byte, packet string) []byte {
	return element(simpleBlock, []byte{0x80 | track, 0, 0, flags}, packet)
}

func webmBlocks(packets []string) (blocks []byte) {
	for _, p := range packets {
		blocks = cat(blocks, webmBlock(2, 0x80, p))
	}
	return blocks
}

// mp3Frame is a frame of MPEG 1, layer 3, of 128 kbit/s at 48000 Hz: 24 ms in 384 bytes.
var mp3Frame = append([]byte{0xFF, 0xFB, 0x94, 0}, make([]byte, 380)...)

// aacFrame is a frame of 1024 samples at 16000 Hz: 64 ms in 100 bytes.
var aacFrame = append([]byte{0xFF, 0xF1, 8<<2 | 1<<6, 0x40, 100 >> 3, 100 << 5 & 0xFF, 0}, make([]byte, 93)...)

func TestLength(t *testing.T) {
	const minute, aacMinute = time.Minute, 938 * 64 * time.Millisecond
	for _, test := range []struct {
		name string
		file []byte
		want time.Duration // 0: it can't be told
	}{
		{"wav", wavFile(16000, make([]byte, 16000), wavFormat(1, 1, 2, 16)), time.Second},
		{"wav, stereo", wavFile(64000, make([]byte, 64000), wavFormat(1, 2, 4, 16)), 2 * time.Second},
		{"wav that is streamed", wavFile(0xFFFFFFFF, make([]byte, 16000), wavFormat(1, 1, 2, 16)), time.Second},
		{"wav that claims less than it has", wavFile(2, make([]byte, 16000), wavFormat(1, 1, 2, 16)), time.Second},
		{"wav without samples", wavFile(0, nil, wavFormat(1, 1, 2, 16)), 0},
		{"wav of another codec", wavFile(9, make([]byte, 9), wavFormat(2, 1, 2, 16)), 0},
		{"wav in floating point", wavFile(0, make([]byte, 32000), wavFormat(3, 1, 4, 32)), time.Second},
		{"wav in µ-law", wavFile(0, make([]byte, 8000), wavFormat(7, 1, 1, 8)), time.Second},
		{"wav in µ-law that claims wide samples", wavFile(0, make([]byte, 8000), wavFormat(7, 1, 1, 64000)), time.Second},
		{"wav of many channels by its width, of one by its blocks", wavFile(0, make([]byte, 8000), wavFormat(1, 1, 1, 32)), 0},
		{"wav of samples of no width", wavFile(0, make([]byte, 8000), wavFormat(1, 1, 8, 64)), 0},
		{"wav with two formats", wavFile(0, make([]byte, 8000), wavFormat(7, 1, 1, 8), wavFormat(1, 60000, 60000, 8)), 0},
		{"wav, extensible", wavFile(0, make([]byte, 24000), wavFormat(0xFFFE, 1, 3, 24, extensible(24, 1))), time.Second},
		{"wav, extensible, of MP3", wavFile(0, make([]byte, 24000), wavFormat(0xFFFE, 1, 3, 24, extensible(24, 0x55))), 0},
		{"wav, extensible, of narrower samples", wavFile(0, make([]byte, 24000), wavFormat(0xFFFE, 1, 4, 32, extensible(8, 1))), 0},
		{"wav, extensible, cut", wavFile(0, make([]byte, 24000), wavFormat(0xFFFE, 1, 3, 24)), 0},
		{"wav of which only frames can be read", wavFile(0, bytes.Repeat(mp3Frame, 25), wavFormat(0x55, 1, 1, 0)), 0},
		{"mp3", bytes.Repeat(mp3Frame, 2500), minute},
		{"mp3 with tags", cat("ID3\x04\x00\x00\x00\x00\x01\x00", make([]byte, 128), bytes.Repeat(mp3Frame, 2500), "TAG", make([]byte, 125)), minute},
		{"mp3 in a tag that is none", cat("ID3\x04\x00\x00\x7F\xFF\x7F\x7F", bytes.Repeat(mp3Frame, 2500), bytes.Repeat(mp3Frame, 25)), 0},
		{"mp3 and another kind of frames", cat(bytes.Repeat(mp3Frame, 25), bytes.Repeat(aacFrame, 100)), 0},
		{"mp3 behind what may be another format", cat(box("mdat"), bytes.Repeat(mp3Frame, 25)), 0},
		{"aac", bytes.Repeat(aacFrame, 1000), 64 * time.Second},
		{"aac, several frames in one", cat([]byte{0xFF, 0xF1, 8<<2 | 1<<6, 0x40 | 6144>>11, 6144 >> 3 & 0xFF, 0, 0}, make([]byte, 6137)), 4 * 64 * time.Millisecond},
		{"a frame in something else", cat(make([]byte, 5000), "x", mp3Frame, mp3Frame), 0},
		{"flac", flacFile(16000*60, 60), minute},
		{"flac of unknown length", flacFile(0, 60), minute},
		{"flac that claims less than it has", flacFile(16000, 60), 0},
		{"flac that claims another rate than its frames", cat(flacFile(16000*60, 1), bytes.Repeat(flacFrame16k(4), 59)), 0},
		{"opus", opusFile(60), minute},
		{"vorbis", cat(oggPage(1, 2, vorbisHead), oggPage(1, 0, "\x03vorbis", "\x05vorbis"), bytes.Repeat(oggPage(1, 0, vorbisSecond...), 60)), minute},
		{"opus, cut", opusFile(2)[:len(opusFile(2))-100], 1100 * time.Millisecond},
		{"opus, two streams", cat(opusFile(1), opusFile(60)), 0},
		{"opus, two streams at once", cat(opusFile(1), oggPage(2, 0, opusSecond...)), 0},
		{"opus, in pages of which a sum is wrong", cat(opusFile(1), oggPage(1, 0, string(oggPage(1, 0, opusSecond...)))), 0},
		{"opus, a packet that goes on without an end", cat(opusFile(1), oggPage(1, 1, opusSecond...)), 0},
		{"another codec in ogg", cat(oggPage(1, 2, "Speex   "), bytes.Repeat(oggPage(1, 0, opusSecond...), 60)), 0},
		{"m4a", mp4File(aacTrack(edits(2112))), aacMinute},
		{"m4a that begins late", mp4File(aacTrack(edits(1<<32-1, 0))), aacMinute},
		{"m4a with a picture", mp4File(mp4Track("vide", 1, 1, 1, box("mp4v")), aacTrack()), aacMinute},
		{"m4a with longer times", mp4File(mp4Track("soun", 1000, 1, 60_000, aacEntry())), minute},
		{"m4a with a clock that is too fast", mp4File(mp4Track("soun", 1_600_000, 938, 1024, aacEntry())), 0},
		{"m4a with times that are too short", mp4File(mp4Track("soun", 16000, 960_000, 1, aacEntry())), 0},
		{"m4a of large frames", mp4File(bytes.Replace(mp4Track("soun", 16000, 1, 4096, aacEntry()), cat(be32(100), be32(1)), cat(be32(6144), be32(1)), 1)), 4 * 64 * time.Millisecond},
		{"m4a with two tracks", mp4File(aacTrack(), mp4Track("soun", 16000, 1, 1024, aacEntry())), 0},
		{"m4a with a track of an unknown kind", mp4File(aacTrack(), mp4Track("snd ", 16000, 1, 1024, aacEntry())), 0},
		{"m4a with a track where none is expected", mp4File(mp4Track("soun", 16000, 1, 1024, aacEntry()), box("udta", aacTrack())), 0},
		{"m4a whose parts are repeated", mp4File(aacTrack(edits(0, 0, 0))), 0},
		{"m4a of another codec", mp4File(mp4Track("soun", 16000, 938, 1024, box(".mp3", make([]byte, 64)))), 0},
		{"alac", mp4File(mp4Track("soun", 16000, 960, 1000, box("alac", make([]byte, 28), box("alac", be32(0), be32(1000), make([]byte, 16), be32(16000))))), minute},
		{"mov", mp4File(mp4Track("soun", 16000, 938, 1024, aacEntry(), box("mdia", box("minf", box("hdlr", "\x00\x00\x00\x00dhlralis"))))), aacMinute},
		{"m4a with two handlers", mp4File(mp4Track("vide", 16000, 938, 1024, aacEntry(), box("mdia", box("minf", box("hdlr", "\x00\x00\x00\x00dhlrsoun")))), aacTrack()), 0},
		{"mp4 in fragments", cat(mp4File(aacTrack()), box("moof", box("traf", box("tfhd")))), 0},
		{"webm", webmFile(webmTrack("A_OPUS"), bytes.Repeat(webmBlocks(opusSecond), 60)), minute},
		{"webm, cut", cat(webmFile(webmTrack("A_OPUS"), webmBlocks(opusSecond)), "\xA3\x10"), time.Second},
		{"webm of Vorbis", webmFile(webmTrack("A_VORBIS", element(codecPrivate, []byte{2, byte(len(vorbisHead)), 1}, vorbisHead, "xx")), bytes.Repeat(webmBlocks(vorbisSecond), 60)), minute},
		{"webm of another codec", webmFile(webmTrack("A_AC3"), webmBlocks(opusSecond)), 0},
		{"webm with packets that are encoded", webmFile(webmTrack("A_OPUS", element(contentEncodings)), webmBlocks(opusSecond)), 0},
		{"webm with several packets in a block", webmFile(webmTrack("A_OPUS"), webmBlock(2, 2, "\xF8a")), 0},
		{"webm with two tracks of sound", webmFile(cat(webmTrack("A_OPUS"), webmTrack("A_OPUS")), webmBlocks(opusSecond)), 0},
		{"webm, two in a file", cat(webmFile(webmTrack("A_OPUS"), webmBlocks(opusSecond)), webmFile(webmTrack("A_OPUS"), webmBlocks(opusSecond))), 0},
		{"webm with a cluster in something else", webmFile(webmTrack("A_OPUS"), webmBlocks(opusSecond), element(0xEC, element(cluster))), 0},
		{"webm that can't be read to its end", webmFile(webmTrack("A_OPUS"), webmBlocks(opusSecond), make([]byte, 100)), 0},
		{"webm without blocks", webmFile(webmTrack("A_OPUS")), 0},
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
	for _, file := range [][]byte{wavFile(9, make([]byte, 99), wavFormat(1, 1, 2, 16)), bytes.Repeat(mp3Frame, 3), aacFrame, flacFile(0, 1), opusFile(1),
		mp4File(aacTrack(edits(0))), webmFile(webmTrack("A_OPUS"), webmBlocks(opusSecond))} {
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
