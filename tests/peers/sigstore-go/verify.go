package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	load "github.com/sigstore/sigstore/pkg/signature/options"
)

// verifyBundle asks for all that a bundle of this service must have: a log entry, a timestamp, and, where somebody
// signed by a certificate, an SCT and the given identity.
func verifyBundle(o options) error {
	byKey := o.key != ""
	if byKey == (o.identity != "" && o.issuer != "") {
		return fmt.Errorf("%w: give --identity with --issuer, or --key", errUsage)
	}
	entity, err := bundle.LoadJSONFromPath(o.bundle)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if isStatement := entity.GetDsseEnvelope() != nil; isStatement != (o.subject != "") {
		return errors.New("the bundle is of the other kind: --file is for a signature, --subject for a statement")
	}
	trusted, err := root.NewTrustedRootFromPath(o.trustedRoot)
	if err != nil {
		return fmt.Errorf("trusted root: %w", err)
	}
	material := root.TrustedMaterialCollection{trusted}
	wanted := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1)}
	var signer verify.PolicyOption
	if byKey {
		key, err := keyFrom(o.key)
		if err != nil {
			return err
		}
		material = append(material, key)
		signer = verify.WithKey()
	} else {
		identity, err := verify.NewShortCertificateIdentity(o.issuer, "", o.identity, "")
		if err != nil {
			return err
		}
		wanted = append(wanted, verify.WithSignedCertificateTimestamps(1))
		signer = verify.WithCertificateIdentity(identity)
	}
	verifier, err := verify.NewVerifier(material, wanted...)
	if err != nil {
		return err
	}
	artifact, err := artifactOf(o)
	if err != nil {
		return err
	}
	_, err = verifier.Verify(entity, verify.NewPolicy(artifact, signer))
	return err
}

// keyFrom makes trust material of one key, whatever hint a bundle has.
func keyFrom(path string) (root.TrustedMaterial, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	verifier, err := signature.LoadDefaultVerifier(public, load.WithED25519ph())
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	key := root.NewExpiringKey(verifier, time.Time{}, time.Time{})
	return root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return key, nil }), nil
}

func artifactOf(o options) (verify.ArtifactPolicyOption, error) {
	if digest, ok := strings.CutPrefix(o.subject, "sha256:"); ok {
		bytes, err := hex.DecodeString(digest)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		return verify.WithArtifactDigest("sha256", bytes), nil
	}
	file, err := os.Open(o.file + o.subject)
	if err != nil {
		return nil, err
	}
	// Closed by the end of the process, after it was read.
	return verify.WithArtifact(file), nil
}
