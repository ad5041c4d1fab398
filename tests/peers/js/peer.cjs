// The JavaScript clients of Sigstore behind a command line, for tests/peers/matrix:
//
//   peer.cjs sign   --signing-config F --token-file F --bundle OUT (--file F | --statement F)
//   peer.cjs verify --trusted-root F --bundle F (--identity I --issuer U | --key PEM) (--file F | --subject FILE_OR_DIGEST)
//   peer.cjs fetch  --mirror URL --root F --cache DIR --target NAME      prints a target of a TUF repository
//
// Exit codes: 0 yes or done, 1 no or failed, with one line that says why; 64 wrong usage. What the libraries leave to
// their callers is done here: an exact identity, and a statement that must speak about the subject.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const { parseArgs } = require('node:util');

const STATEMENT_TYPE = 'application/vnd.in-toto+json';
const OPTIONS = [
  'signing-config', 'trusted-root', 'token-file', 'bundle', 'file', 'statement', 'identity', 'issuer', 'key', 'subject',
  'mirror', 'root', 'cache', 'target',
];

class Usage extends Error {}

function readJSON(path) {
  return JSON.parse(fs.readFileSync(path, 'utf8'));
}

async function sign(options) {
  const { bundleToJSON } = require('@sigstore/bundle');
  const { SigningConfig } = require('@sigstore/protobuf-specs');
  const { bundleBuilderFromSigningConfig } = require('@sigstore/sign');
  const token = fs.readFileSync(options['token-file'], 'utf8').trim();
  const builder = bundleBuilderFromSigningConfig({
    signingConfig: SigningConfig.fromJSON(readJSON(options['signing-config'])),
    identityProvider: { getToken: async () => token },
    bundleType: options.statement ? 'dsseEnvelope' : 'messageSignature',
  });
  const artifact = options.statement
    ? { data: fs.readFileSync(options.statement), type: STATEMENT_TYPE }
    : { data: fs.readFileSync(options.file) };
  const bundle = await builder.create(artifact);
  fs.writeFileSync(options.bundle, JSON.stringify(bundleToJSON(bundle)));
}

function verify(options) {
  const { bundleFromJSON } = require('@sigstore/bundle');
  const { TrustedRoot } = require('@sigstore/protobuf-specs');
  const { toSignedEntity, toTrustMaterial, Verifier } = require('@sigstore/verify');
  if (Boolean(options.key) === Boolean(options.identity && options.issuer)) {
    throw new Usage('give --identity with --issuer, or --key');
  }
  const bundle = bundleFromJSON(readJSON(options.bundle));
  const byKey = bundle.verificationMaterial.content.$case === 'publicKey';
  if (byKey !== Boolean(options.key)) {
    throw new Error(byKey ? 'signed by a key, and an identity is wanted' : 'signed by a certificate, and a key is wanted');
  }
  const isStatement = bundle.content.$case === 'dsseEnvelope';
  if (isStatement !== Boolean(options.subject)) {
    throw new Error(isStatement ? 'the bundle holds a statement' : 'the bundle holds no statement');
  }
  const root = TrustedRoot.fromJSON(readJSON(options['trusted-root']));
  const verifier = new Verifier(toTrustMaterial(root, options.key && only(options.key)));
  const entity = toSignedEntity(bundle, options.file && fs.readFileSync(options.file));
  verifier.verify(entity, options.identity && exactly(options.identity, options.issuer));
  if (isStatement) {
    checkSubject(bundle.content.dsseEnvelope, options.subject);
  }
}

// One key, whatever hint a bundle has.
function only(path) {
  const key = { publicKey: crypto.createPublicKey(fs.readFileSync(path)), validFor: () => true };
  return () => key;
}

// The verifier takes the name as a regular expression that may match anywhere.
function exactly(identity, issuer) {
  const escaped = identity.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return { subjectAlternativeName: `^${escaped}$`, extensions: { issuer } };
}

function checkSubject(envelope, subject) {
  if (envelope.payloadType !== STATEMENT_TYPE) {
    throw new Error(`the payload is ${envelope.payloadType}, and no statement`);
  }
  const digest = subject.startsWith('sha256:')
    ? subject.slice('sha256:'.length)
    : crypto.createHash('sha256').update(fs.readFileSync(subject)).digest('hex');
  const statement = JSON.parse(envelope.payload.toString('utf8'));
  if (!statement.subject.some((one) => one.digest.sha256 === digest)) {
    throw new Error(`the statement does not speak about ${digest}`);
  }
}

async function fetchTarget(options) {
  const { initTUF } = require('@sigstore/tuf');
  const client = await initTUF({
    mirrorURL: options.mirror,
    rootPath: options.root,
    cachePath: options.cache,
    forceInit: true,
  });
  process.stdout.write(await client.getTarget(options.target));
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: Object.fromEntries(OPTIONS.map((name) => [name, { type: 'string' }])),
  });
  const commands = { sign, verify, fetch: fetchTarget };
  const command = commands[positionals[0]];
  if (!command || positionals.length !== 1) {
    throw new Usage('peer.cjs sign|verify|fetch OPTION…');
  }
  await command(values);
}

main().catch((error) => {
  const usage = error instanceof Usage || error.code?.startsWith('ERR_PARSE_ARGS');
  const cause = error.cause?.message ? `: ${error.cause.message}` : '';
  process.stderr.write(`${error.code ? `${error.code}: ` : ''}${error.message}${cause}\n`);
  process.exitCode = usage ? 64 : 1;
});
