"""Makes the application: its routes, what each accepts, and what `openapi.json` says of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import lraee
from lraee.errors import LraeeError
from lraee.policies import Full, Policy
from lraee.prediction import Prediction
from lraee.service import schemas
from lraee.service.answering import Answering
from lraee.service.bodies import FORM, MEDIA_TYPES, Form, check_media_type, parse_body, read_body
from lraee.service.gate import App, Receive, Scope, Send
from lraee.service.options import SCHEMAS, Asked, options_of, with_fields
from lraee.service.page import page
from lraee.service.problems import GONE, WORDS, Gone, Problem, error_body, problem_of

T = TypeVar("T")
Result = TypeVar("Result", bound=BaseModel)

JSON = "application/json"


def make_app(answering: Answering) -> FastAPI:
    """Make the application; ending its lifespan answers what was accepted and ends all threads."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(answering.close)

    app = FastAPI(
        title="lraee",
        version=lraee.__version__,
        description="Classifies and embeds images; each leaves the tower at the first exit that is sure of its answer.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_images(app, answering)
    _add_others(app, answering)
    for kind, handler in _handlers().items():
        app.add_exception_handler(kind, handler)
    if answering.settings.token is not None:
        _describe_token(app)
    return app


def direct(app: FastAPI) -> App:
    """Let images be answered without the layers of the framework around their routes; all else goes to the application.

    These layers are some 80 calls, and a tower that has run leaves cold caches for them.
    """
    routes = {route.path: route for route in app.routes if isinstance(route, APIRoute) and route.methods == {"POST"}}
    handlers = _handlers()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        if not is_post or (route := routes.get(scope["path"])) is None:
            await app(scope, receive, send)
            return
        scope["route"] = route
        request, fault = Request(scope, receive, send), None
        try:
            response: Response = await route.endpoint(request)
        except Exception as error:
            handler = next(found for kind, found in handlers.items() if isinstance(error, kind))
            response = await handler(request, error)
            fault = error if handler is _on_fault else None
        await response(scope, receive, send)
        if fault is not None:
            raise fault

    return answer


def _handlers() -> dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]:
    """Say what answers each error; the first that fits does."""
    return {
        Problem: _on_problem,
        LraeeError: _on_error,
        HTTPException: _on_http,
        Gone: _on_gone,
        Exception: _on_fault,
    }


def _add_images(app: FastAPI, answering: Answering) -> None:
    blocks, full_flops = answering.model.manifest.tower.blocks, answering.model.manifest.full_flops

    def answer(one: Prediction) -> schemas.Answer:
        top = [schemas.Scored(label=label, score=score) for label, score in one.top]
        return schemas.Answer(**schemas.left_of(one, blocks, full_flops), label=one.label, score=one.score, top=top)

    def embedding(one: Prediction) -> schemas.Embedding:
        return schemas.Embedding(**schemas.left_of(one, blocks, full_flops), embedding=one.embedding.tolist())

    @app.post(
        "/v1/classify",
        summary="Classify one image, or several in a form",
        response_model=schemas.Answer | schemas.Answers,
        responses=_responses(400, 401, 408, 413, 415, 422, 429, 503),
        openapi_extra=_accepted(),
    )
    async def classify(request: Request) -> Response:
        form, found = await _answers(request, answering, answering.model.policy)
        if form.is_one:
            return _written(answer(_only(found)))
        return _written(schemas.Answers(results=_named(form, found, answer, schemas.NamedAnswer)))

    @app.post(
        "/v1/embed",
        summary="Embed one image, or several in a form; at full depth unless a policy is given",
        response_model=schemas.Embedding | schemas.Embeddings,
        responses=_responses(400, 401, 408, 413, 415, 422, 429, 503),
        openapi_extra=_accepted(),
    )
    async def embed(request: Request) -> Response:
        form, found = await _answers(request, answering, Full())
        if form.is_one:
            return _written(embedding(_only(found)))
        return _written(schemas.Embeddings(results=_named(form, found, embedding, schemas.NamedEmbedding)))


def _add_others(app: FastAPI, answering: Answering) -> None:
    @app.get("/v1/model", summary="Describe the bundle and the limits", responses=_responses(401))
    async def model() -> schemas.ModelInfo:
        return _model_info(answering)

    unhealthy: dict[int | str, dict[str, Any]] = {
        503: {"model": schemas.Health, "description": "It has failed; start it again."}
    }

    @app.get("/healthz", summary="Tell whether the program works", response_model=schemas.Health, responses=unhealthy)
    async def health() -> Response:
        return _health("failed" if answering.state == "failed" else "ok", answering.state != "failed")

    @app.get(
        "/readyz",
        summary="Tell whether images are accepted",
        response_model=schemas.Health,
        responses={503: {"model": schemas.Health, "description": "Images are not accepted."}},
    )
    async def ready() -> Response:
        return _health(answering.state, answering.state == "ready")

    @app.get(
        "/metrics",
        summary="Give all counters for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_responses(401)},
    )
    async def metrics() -> Response:
        counted = answering.metrics
        counted.waiting.set(answering.admission.images)
        counted.image_seconds.set(answering.admission.image_s)
        counted.ready.set(answering.state == "ready")
        return Response(counted.page(), headers={"Content-Type": counted.content_type})

    content, headers = page()

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)


async def _answers(request: Request, answering: Answering, default: Policy) -> tuple[Form, list[Prediction | Problem]]:
    """Read a request and answer its images.

    Raises:
        Problem: it is not accepted, or there is no answer in time.
        LraeeError: what it asks for cannot be had.
        Gone: the client closed its connection.
    """
    settings, admission = answering.settings, answering.admission
    answering.check_ready()
    content_type = request.headers.get("content-type", "")
    check_media_type(content_type)
    asked = with_fields(Asked(), request.query_params.multi_items()) if request.scope["query_string"] else Asked()
    options = options_of(asked, answering.model, default, settings.labels)
    admission.check()
    with admission.holding() as hold:
        try:
            length = request.headers.get("content-length")
            body = await read_body(request.stream(), length, settings, hold)
        except ClientDisconnect as error:
            raise Gone from error
        form = parse_body(body, content_type)
        del body
        images = [image for _, image in form.images]
        if len(images) > settings.images:
            raise Problem(422, f"the form has {len(images)} images, wanted at most {settings.images}")
        if form.fields:
            asked = with_fields(asked, form.fields, request.query_params.keys())
            options = options_of(asked, answering.model, default, settings.labels)
        request.state.images = len(images)
        with admission.accepted(len(images)) as answered:
            found = await _unless_gone(request, answering.classify(images, options))
            request.state.blocks = [one.exit_block for one in found if isinstance(one, Prediction)]
            answered(len(request.state.blocks))
    return form, found


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for work, and cancel it where the client closes its connection.

    The work runs in the task of the request: one of its own would take time to begin and to end.

    Raises:
        Gone: it did.
    """
    task, gone, waits = asyncio.current_task(), asyncio.ensure_future(request.receive()), True
    assert task is not None

    def leave(_: object) -> None:
        if waits and not gone.cancelled():
            task.cancel()

    gone.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled() and task.uncancel() == 0:
            raise Gone from None
        raise
    finally:
        waits = False
        gone.cancel()


def _only(found: Sequence[Prediction | Problem]) -> Prediction:
    (one,) = found
    if isinstance(one, Problem):
        raise one
    return one


def _named(
    form: Form, found: Sequence[Prediction | Problem], answer: Callable[[Prediction], BaseModel], kind: type[Result]
) -> list[Result]:
    """Give each image of a form its answer, or its error."""
    results = []
    for position, ((name, _), one) in enumerate(zip(form.images, found, strict=True)):
        fields: dict[str, Any] = {"position": position, "name": name}
        if isinstance(one, Problem):
            fields["error"] = schemas.Error(status=one.status, message=one.message)
        else:
            fields["answer"] = answer(one)
        results.append(kind(**fields))
    return results


def _model_info(answering: Answering) -> schemas.ModelInfo:
    model, settings = answering.model, answering.settings
    manifest = model.manifest
    return schemas.ModelInfo(
        bundle=model.bundle.place.stem,
        manifest_sha256=model.bundle.manifest_sha256,
        model=manifest.model.id,
        blocks=manifest.tower.blocks,
        exits=[exit.block for exit in manifest.exits],
        operating_points=[point.name for point in manifest.operating_points],
        default_point=manifest.default_point,
        schedules=[schedule.name for schedule in manifest.schedules],
        labels=list(model.labels),
        probabilities=manifest.probabilities,
        takes_labels=manifest.text is not None,
        embed_dim=manifest.tower.embed_dim,
        image_size=manifest.preprocessing.image_size,
        full_flops=manifest.full_flops,
        version=lraee.__version__,
        limits=schemas.Limits(
            body_bytes=settings.body_bytes,
            pixels=model.reading.max_pixels,
            images=settings.images,
            labels=settings.labels,
            queue=settings.queue,
            time_limit_s=settings.time_limit_s,
        ),
    )


def _health(state: str, is_good: bool) -> Response:
    body = schemas.Health.model_validate({"status": state}).model_dump_json()
    return Response(body, 200 if is_good else 503, media_type=JSON)


def _written(body: BaseModel) -> Response:
    return Response(body.model_dump_json(), media_type=JSON)


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.ErrorBody, "description": WORDS[status]} for status in statuses}


def _accepted() -> dict[str, Any]:
    """Describe the parameters of a request, and its body: an image, or a form of images and the same parameters."""
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in SCHEMAS.items()
    ]
    image = {"type": "string", "format": "binary"}
    properties = {**SCHEMAS, "images": {"type": "array", "items": image, "minItems": 1}}
    form = {"type": "object", "required": ["images"], "properties": properties, "additionalProperties": False}
    content = {kind: {"schema": image} for kind in MEDIA_TYPES} | {FORM: {"schema": form}}
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def _describe_token(app: FastAPI) -> None:
    """Say in the description which routes want the token; `lraee.service.gate` checks it."""
    described = app.openapi()
    schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["token"] = {"type": "http", "scheme": "bearer"}
    for path, methods in described["paths"].items():
        for operation in methods.values():
            if path.startswith("/v1/") or path == "/metrics":
                operation["security"] = [{"token": []}]


async def _on_problem(request: Request, problem: Exception) -> Response:
    problem = cast(Problem, problem)
    request.state.message = problem.message
    return Response(error_body(problem.status, problem.message), problem.status, problem.headers, JSON)


async def _on_error(request: Request, error: Exception) -> Response:
    return await _on_problem(request, problem_of(cast(LraeeError, error)))


async def _on_http(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    return await _on_problem(request, Problem(error.status_code, str(error.detail), headers=dict(error.headers or {})))


async def _on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)  # for the log: nobody is there to read it


async def _on_fault(request: Request, error: Exception) -> Response:
    return await _on_problem(request, Problem(500, "the service has a fault; its log says which"))
