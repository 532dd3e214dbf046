package gateway

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A gRPC answer has the HTTP status 200 also if the call has failed. How the call went is told by a status of gRPC's own: in a trailer, in the
// header if there is nothing else to say, or, with gRPC-Web, in the last frame of the body.
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md

const headerGRPCStatus = "Grpc-Status"

// GRPCCodes are the names of gRPC's statuses. The index of a name is its code.
// https://grpc.io/docs/guides/status-codes/
var GRPCCodes = []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

// grpcKind is the media type of gRPC answers. Others of its kind begin with it.
const grpcKind = "application/grpc"

// isGRPC reports whether an answer is one of gRPC or of gRPC-Web.
func isGRPC(h http.Header) bool {
	rest, is := strings.CutPrefix(mediaType(h), grpcKind)
	return is && (rest == "" || rest[0] == '+' || rest[0] == '-')
}

// statedGRPC returns the status in a header, or in the trailers that a handler has put there.
func statedGRPC(h http.Header) (code int, ok bool) {
	stated := h.Get(headerGRPCStatus)
	if stated == "" {
		if late := h[http.TrailerPrefix+headerGRPCStatus]; len(late) > 0 {
			stated = late[0]
		}
	}
	code, err := strconv.Atoi(stated)
	return code, err == nil
}

// callersGRPC are the statuses by which a caller can end an answer of which it has had messages: it cancels, sets a short deadline
// (Grpc-Timeout), or sends a message that can't be read. An answer that has messages and ends so is charged as any other.
var callersGRPC = []int{1, 3, 4, 8, 9, 11} // CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE

// failedGRPC reports whether a complete answer states a gRPC status that is not charged. An answer without one has perhaps lost it on a hop
// without trailers, and is charged. frames are those of gRPC-Web, or nil. messages says whether the answer has any.
func (r *Route) failedGRPC(h http.Header, frames *grpcFrames, messages bool) bool {
	code, ok := statedGRPC(h)
	if !ok && frames != nil {
		code, ok = frames.status()
	}
	if messages && r.ChargedGRPC == nil && slices.Contains(callersGRPC, code) {
		return false
	}
	return ok && !r.chargedGRPC(code)
}

func (r *Route) chargedGRPC(code int) bool {
	if r.ChargedGRPC == nil {
		return code == 0
	}
	return r.ChargedGRPC(code)
}

// grpcFrames finds the frame of trailers in a body of gRPC-Web. Each frame has a byte of flags and a length in front.
type grpcFrames struct {
	text    bool   // the body is in base64
	quantum []byte // of base64, up to 4 bytes that are not decoded yet
	head    []byte // of the frame, up to 5 bytes
	left    uint32 // bytes of the frame that have not come
	trailer []byte // of the frame of trailers
	any     bool   // a frame of a message has come
}

const (
	grpcHead       = 5    // bytes
	grpcTrailers   = 0x80 // the flag of a frame of trailers
	maxGRPCTrailer = 8 << 10
)

// newGRPCFrames returns nil if the answer is not one of gRPC-Web.
func newGRPCFrames(h http.Header) *grpcFrames {
	rest, is := strings.CutPrefix(h.Get("Content-Type"), grpcKind+"-web")
	if !is {
		return nil
	}
	return &grpcFrames{text: strings.HasPrefix(rest, "-text")}
}

func (f *grpcFrames) feed(p []byte) {
	if f == nil {
		return
	}
	if !f.text {
		f.decoded(p)
		return
	}
	for _, c := range p {
		if f.quantum = append(f.quantum, c); len(f.quantum) < 4 {
			continue
		}
		var bytes [3]byte
		n, _ := base64.StdEncoding.Decode(bytes[:], f.quantum)
		f.decoded(bytes[:n])
		f.quantum = f.quantum[:0]
	}
}

func (f *grpcFrames) decoded(p []byte) {
	for len(p) > 0 {
		if len(f.head) < grpcHead {
			n := min(grpcHead-len(f.head), len(p))
			f.head, p = append(f.head, p[:n]...), p[n:]
			if len(f.head) == grpcHead {
				f.left = binary.BigEndian.Uint32(f.head[1:])
			}
		}
		n := min(int(f.left), len(p))
		if len(f.head) == grpcHead {
			f.any = f.any || f.head[0]&grpcTrailers == 0
			if f.head[0]&grpcTrailers != 0 && len(f.trailer)+n <= maxGRPCTrailer {
				f.trailer = append(f.trailer, p[:n]...)
			}
			f.left, p = f.left-uint32(n), p[n:]
			if f.left == 0 {
				f.head = f.head[:0]
			}
		}
	}
}

func (f *grpcFrames) status() (code int, ok bool) {
	for line := range strings.Lines(string(f.trailer)) {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(strings.TrimSpace(name), headerGRPCStatus) {
			code, err := strconv.Atoi(strings.TrimSpace(value))
			return code, err == nil
		}
	}
	return 0, false
}
