package wire

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var taxonomy = []struct {
	err  error
	code codes.Code
}{
	{errdefs.ErrInvalidArgument, codes.InvalidArgument},
	{errdefs.ErrNotFound, codes.NotFound},
	{errdefs.ErrAlreadyExists, codes.AlreadyExists},
	{errdefs.ErrPermissionDenied, codes.PermissionDenied},
	{errdefs.ErrUnauthenticated, codes.Unauthenticated},
	{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
	{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
	{errdefs.ErrConflict, codes.FailedPrecondition},
	{errdefs.ErrAborted, codes.Aborted},
	{errdefs.ErrOutOfRange, codes.OutOfRange},
	{errdefs.ErrNotImplemented, codes.Unimplemented},
	{errdefs.ErrUnavailable, codes.Unavailable},
	{errdefs.ErrDataLoss, codes.DataLoss},
	{errdefs.ErrInternal, codes.Internal},
	{errdefs.ErrUnknown, codes.Unknown},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// Status converts an error of the errdefs classes to a gRPC status. The name of the class ("not found") is cut from the end
// of the text, since the code has it.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, class := range taxonomy {
		if errors.Is(err, class.err) {
			return status.Error(class.code, short(Sentence(err)))
		}
	}
	return status.Error(codes.Internal, short(err.Error()))
}

// longestSentence is in bytes: a message may repeat long input, and is sent as a header.
const longestSentence = 4 << 10

// short truncates a long message in the middle, since the advice is at its end.
func short(sentence string) string {
	sentence = Text(sentence)
	if len(sentence) <= longestSentence {
		return sentence
	}
	half := longestSentence / 2
	return strings.ToValidUTF8(sentence[:half], "") + " … " + strings.ToValidUTF8(sentence[len(sentence)-half:], "")
}

// Sentence is an error's text for a person: without the class at its end, and without gRPC's prefix.
func Sentence(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	for {
		shorter := withoutClass(text)
		if shorter == text {
			return Text(text)
		}
		text = shorter
	}
}

// withoutClass cuts the name of a class from the end: after a colon, or on a line of its own in joined errors.
func withoutClass(text string) string {
	for _, class := range taxonomy {
		for _, joint := range []string{": ", "\n"} {
			if cut, ok := strings.CutSuffix(text, joint+class.err.Error()); ok && cut != "" {
				return cut
			}
		}
	}
	return text
}

// Error converts a gRPC status back to an error of the errdefs classes; other errors stay as they are.
func Error(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, class := range taxonomy {
		if class.code == s.Code() {
			return &remote{message: s.Message(), class: class.err}
		}
	}
	return err
}

// Refusal converts an error to the fields of a message: a google.rpc.Code, and one sentence.
func Refusal(err error) (code int32, sentence string) {
	s := status.Convert(Status(err))
	return int32(s.Code()), s.Message()
}

// Refused is the error of a Refusal, of one of the errdefs classes; nil with code 0.
func Refused(code int32, sentence string) error {
	return Error(status.Error(codes.Code(code), sentence))
}

type remote struct {
	message string
	class   error
}

func (r *remote) Error() string { return r.message }
func (r *remote) Unwrap() error { return r.class }
