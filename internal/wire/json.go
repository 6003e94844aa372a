package wire

import (
	"errors"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
)

// JSON is how messages are written as JSON for people and for other programs: with zero values. Of an Any whose type this program does not
// have, such as one of a third party's application master, the type's name is written and nothing else.
var JSON = protojson.MarshalOptions{EmitDefaultValues: true, Resolver: anyTypes{protoregistry.GlobalTypes}}

// anyTypes finds the types that this program has, and takes every other one for an empty message.
type anyTypes struct{ *protoregistry.Types }

func (t anyTypes) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	known, err := t.Types.FindMessageByURL(url)
	if errors.Is(err, protoregistry.NotFound) {
		return (*emptypb.Empty)(nil).ProtoReflect().Type(), nil
	}
	return known, err
}
