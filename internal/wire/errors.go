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

// Status turns an error of the errdefs taxonomy into a gRPC status. The class's own word ("not found") is cut
// from the end of the sentence, since the code says it.
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

// longestSentence is in bytes: a refusal repeats what it was given, which may be long, and is sent as a header.
const longestSentence = 4 << 10

// short cuts a sentence that is too long in the middle, since what to do stands at its end.
func short(sentence string) string {
	sentence = Text(sentence)
	if len(sentence) <= longestSentence {
		return sentence
	}
	half := longestSentence / 2
	return strings.ToValidUTF8(sentence[:half], "") + " … " + strings.ToValidUTF8(sentence[len(sentence)-half:], "")
}

// Sentence is an error's text for a person: without the taxonomy's word behind it, and without gRPC's prefix.
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

// withoutClass cuts one of the taxonomy's words from the end: after a colon, or on a line of its own where errors were joined.
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

// Error turns a gRPC status back into an error of the errdefs taxonomy; other errors stay as they are.
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

type remote struct {
	message string
	class   error
}

func (r *remote) Error() string { return r.message }
func (r *remote) Unwrap() error { return r.class }
