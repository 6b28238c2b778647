// The Gateway API's conformance suite for meshes, as `cargo xtask conformance` builds and runs it. What is
// claimed stands in options.yaml; nothing is decided here.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
