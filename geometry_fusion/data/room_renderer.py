"""Renders a room with PyBullet's software renderer (TinyRenderer): colour, ids, depth."""

from contextlib import ExitStack

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from geometry_fusion.data import meshes
from geometry_fusion.data.room_layout import Layout
from geometry_fusion.io.mask_writer import write_rgb
from geometry_fusion.io.temporary import working_folder

NEAR_M, FAR_M = 0.05, 30.0  # clipping planes


class Renderer:
    """One PyBullet world with one room. Use as a context manager."""

    def __init__(self, layout: Layout):
        import pybullet  # only rendering needs it; datasets are read without

        self._p = pybullet
        self._layout = layout

    def __enter__(self) -> "Renderer":
        with ExitStack() as stack:
            self._client = self._p.connect(self._p.DIRECT)
            stack.callback(self._p.disconnect, self._client)
            self._folder = stack.enter_context(working_folder("3am-textures"))
            self._add_surfaces()
            self._id_of_body = self._add_objects()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def _add(
        self,
        mesh: meshes.Mesh,
        image: np.ndarray,  # texture, RGB uint8
        position: tuple[float, float, float] = (0, 0, 0),
        yaw: float = 0.0,
    ) -> int:
        """Add a textured mesh to the world; returns PyBullet's number of the body."""
        p = self._p
        shape = p.createVisualShape(
            p.GEOM_MESH,
            vertices=mesh.vertices.tolist(),
            indices=mesh.faces.reshape(-1).tolist(),
            normals=mesh.normals.tolist(),
            uvs=mesh.uvs.tolist(),
            physicsClientId=self._client,
        )
        quaternion = (0, 0, np.sin(yaw / 2), np.cos(yaw / 2))
        body = p.createMultiBody(0, -1, shape, position, quaternion, physicsClientId=self._client)
        file = self._folder / f"{body}.png"  # PyBullet loads textures from files only
        write_rgb(file, image)
        texture_id = p.loadTexture(str(file), physicsClientId=self._client)
        p.changeVisualShape(
            body,
            -1,
            textureUniqueId=texture_id,
            rgbaColor=(1, 1, 1, 1),
            physicsClientId=self._client,
        )
        return body

    def _add_surfaces(self) -> None:
        """Add floor, ceiling and walls."""
        surfaces = self._layout.surfaces
        x, y, z = np.array(self._layout.size) / (2, 2, 1)
        corners = np.array([(-x, -y), (x, -y), (x, y), (-x, y)])
        floor = np.column_stack([corners, np.zeros(4)])
        self._add_quad(floor, (0, 0, 1.0), surfaces[0], corners / 2.5)
        from_below = corners[::-1]
        ceiling = np.column_stack([from_below, np.full(4, z)])
        self._add_quad(ceiling, (0, 0, -1.0), surfaces[1], from_below / 2.5)
        for side in range(4):
            # Seen from inside, the wall runs from corner b to corner a.
            a, b = corners[side], corners[(side + 1) % 4]
            wall = np.array([(*b, 0), (*a, 0), (*a, z), (*b, z)])
            inward = -(a + b) / np.linalg.norm(a + b)
            uvs = np.array([(0, 1), (1, 1), (1, 0), (0, 0)])
            self._add_quad(wall, (*inward, 0), surfaces[2 + side], uvs)

    def _add_quad(
        self,
        vertices: np.ndarray,  # [4, 3]
        normal: tuple[float, float, float],
        image: np.ndarray,
        uvs: np.ndarray,  # [4, 2]
    ) -> None:
        normals, faces = np.tile(normal, (4, 1)), np.array([(0, 1, 2), (0, 2, 3)])
        self._add(meshes.Mesh(vertices, normals, np.asarray(uvs, float), faces), image)

    def _add_objects(self) -> np.ndarray:
        """Add the objects; returns ids by body number, uint16, 0 for walls and background."""
        bodies = {
            self._add(o.mesh, o.texture, (*o.position, 0), o.yaw): o.id
            for o in self._layout.objects
        }
        self._bodies = list(bodies)  # PyBullet's numbers, in the order of the layout's objects
        # One entry more than bodies: the renderer gives background the number -1.
        id_of_body = np.zeros(max(bodies) + 2, np.uint16)
        for body, object_id in bodies.items():
            id_of_body[body] = object_id
        return id_of_body

    def place(self, number: int, object_to_world: np.ndarray) -> None:
        """Move an object, by its place in the layout's list, to a pose [4, 4]."""
        self._p.resetBasePositionAndOrientation(
            self._bodies[number],
            object_to_world[:3, 3].tolist(),
            Rotation.from_matrix(object_to_world[:3, :3]).as_quat().tolist(),
            physicsClientId=self._client,
        )

    def render(
        self,
        camera_to_world: np.ndarray,  # [4, 4], OpenCV axes
        width: int,
        height: int,
        focal: float,  # pixels
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGB [H, W, 3] uint8, ids [H, W] uint16 and z-depth [H, W] in metres of one pose."""
        flip = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenCV camera to OpenGL camera
        view = np.linalg.inv(camera_to_world @ flip).T.reshape(-1).tolist()
        sharp, buffer, bodies = self._raw(view, width, height, focal, shift=0.0)
        # Two colour samples half a pixel apart soften edges at half the cost of 2 x 2. Ids and
        # depth are of one sample: averages of them have no meaning.
        shifted, _, _ = self._raw(view, width, height, focal, shift=0.5)
        rgb = cv2.addWeighted(sharp, 0.5, shifted, 0.5, 0)
        depth = FAR_M * NEAR_M / (FAR_M - (FAR_M - NEAR_M) * buffer)
        return rgb, self._id_of_body[bodies], depth

    def _raw(
        self,
        view: list[float],  # world-to-camera of OpenGL, column-major
        width: int,
        height: int,
        focal: float,
        shift: float,  # pixels, right and down
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGB [H, W, 3] uint8, depth buffer [H, W] in 0..1 and body numbers [H, W]."""
        p = self._p
        # TinyRenderer samples at integers and counts rows from the bottom: its principal point is
        # (W/2, H/2 - 1). The off-centre terms move it to ((W-1)/2, (H-1)/2), and the samples by
        # `shift`.
        x, y = (1 + 2 * shift) / width, (1 - 2 * shift) / height
        z = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M)
        w = -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
        # OpenGL's projection matrix, column by column.
        projection = [2 * focal / width, 0, 0, 0]
        projection += [0, 2 * focal / height, 0, 0]
        projection += [x, y, z, -1]
        projection += [0, 0, w, 0]
        *_, rgba, depth, bodies = p.getCameraImage(
            width,
            height,
            view,
            projection,
            shadow=1,
            lightDirection=self._layout.light,
            lightDistance=8,
            lightAmbientCoeff=0.62,
            lightDiffuseCoeff=0.42,
            lightSpecularCoeff=0.0,
            renderer=p.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        shape = (height, width)
        rgb = rgba.reshape(*shape, 4)[..., :3].astype(np.uint8)
        return rgb, depth.reshape(shape), bodies.reshape(shape)
